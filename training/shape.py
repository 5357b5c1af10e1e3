"""The demo model's config.json and preprocessor_config.json, and its first weights."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.glm4v.vision import VisionBlock
from forebay.models.processor import CLIP_MEAN, CLIP_STD
from training.data import MERGE, PATCH, the_tokenizer
from training.tokenizer import VOCABULARY

# Bounds are compared with twice the pixels (see smart_resize): 112 x 112 to 140 x 140.
SIZE = {"shortest_edge": 2 * 112 * 112, "longest_edge": 2 * 140 * 140}


def config() -> dict[str, Any]:
    """Return config.json."""
    ids = the_tokenizer().token_to_id
    eos = [ids(t) for t in ("<|endoftext|>", "<|user|>", "<|observation|>")]
    text = {
        "model_type": "glm4v_text", "vocab_size": VOCABULARY, "hidden_size": 256,
        "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8,
        "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "pad_token_id": eos[0], "eos_token_id": eos,
        "attention_dropout": 0.0, "use_cache": True,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "mrope_section": [2, 3, 3],
        },
    }  # fmt: skip
    vision = {
        "model_type": "glm4v_vision", "depth": 6, "hidden_size": 128, "num_heads": 8,
        "out_hidden_size": 256, "intermediate_size": 512, "image_size": 112, "patch_size": PATCH,
        "temporal_patch_size": 2, "spatial_merge_size": MERGE, "in_channels": 3,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "attention_bias": True,
        "attention_dropout": 0.0,
        "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
    }  # fmt: skip
    return {
        "architectures": ["Glm4vForConditionalGeneration"], "model_type": "glm4v",
        "text_config": text, "vision_config": vision, "tie_word_embeddings": False,
        "image_token_id": ids("<|image|>"), "video_token_id": ids("<|video|>"),
        "image_start_token_id": ids("<|begin_of_image|>"),
        "image_end_token_id": ids("<|end_of_image|>"),
        "video_start_token_id": ids("<|begin_of_video|>"),
        "video_end_token_id": ids("<|end_of_video|>"),
    }  # fmt: skip


def build() -> Glm4vModel:
    """Return the untrained model."""
    model = Glm4vModel(Glm4vConfig.from_dict(config()))
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            if "norm" not in name:
                nn.init.zeros_(parameter)
            continue
        if "position_embedding" in name:
            nn.init.normal_(parameter, std=0.02)
        elif "embed_tokens" in name:
            nn.init.normal_(parameter, std=0.5)
        elif "lm_head" in name:
            nn.init.normal_(parameter, std=0.02)
        else:
            fan = parameter[0].numel()
            small = 0.5 if name.endswith(_RESIDUAL) else 1.0
            nn.init.normal_(parameter, std=small * fan**-0.5)
    _look_around(model)
    return model


# The last matrices of the residual branches start smaller.
_RESIDUAL = ("attn.proj.weight", "o_proj.weight", "down_proj.weight")
_OFFSETS = (
    ((0, -1), (0, 1), (-1, 0), (1, 0), (0, -2), (0, 2)),
    ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1)),
    ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, 1), (1, -1)),
)
_CONSTANT = 4.0  # the one feature that all patches share at first
_SHARPNESS = 5.0


@torch.no_grad()
def _look_around(model: Glm4vModel) -> None:
    """Let each head of the first blocks start by looking at one neighbouring patch.

    A constant feature in the position table makes constant queries and keys; the rotation turns
    them into attention by offset alone (the idea of ConViT, d'Ascoli and others, 2021).
    """
    tower = model.visual
    width, heads = tower.config.hidden_size, tower.config.num_heads
    size = tower.config.head_dim
    quarter = size // 4
    tower.embeddings.position_embedding.weight[:, -1] = _CONSTANT
    # a little lower than the tower's own: a broader peak
    frequencies = 10000.0 ** (-torch.arange(quarter) * 2 / (size // 2))[:5]
    strength = (_SHARPNESS * size**0.5) ** 0.5 / _CONSTANT
    for block, offsets in zip(tower.blocks, _OFFSETS, strict=False):
        weight = cast("VisionBlock", block).attn.qkv.weight.view(3, heads, size, width)
        weight[:2] *= 0.7
        for head, offset in enumerate(offsets[:heads]):
            weight[:2, head, :, -1] = 0.0
            for axis, delta in enumerate(offset):
                at = axis * quarter + torch.arange(len(frequencies))
                weight[1, head, at, -1] = strength
                weight[0, head, at, -1] = strength * torch.cos(frequencies * delta)
                weight[0, head, at + 2 * quarter, -1] = strength * torch.sin(frequencies * delta)


@torch.no_grad()
def whiten(model: Glm4vModel, patches: Tensor) -> None:
    """Start the patch embedding at the principal components of real patches, scaled to equal power.

    Args:
        model: the model to change.
        patches: [N, 588] normalised pixels.
    """
    projection = model.visual.patch_embed.proj
    mean = patches.mean(0)
    centred = patches - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    width = projection.weight.shape[0]
    top, basis = values.flip(0)[:width], vectors.flip(1)[:, :width]
    weight = (basis / (top + 0.5 * top.mean()).sqrt()).T
    weight[-1] = 0.0  # kept for the constant feature
    projection.weight.copy_(weight.view(width, 3, 1, PATCH, PATCH).expand_as(projection.weight) / 2)
    if projection.bias is not None:
        projection.bias.copy_(-weight @ mean)
        # A constant beside the components: without it the norm that follows would make a grey
        # patch and a white one the same.
        projection.bias[-1] = 1.5
    model.visual.post_conv_layernorm.weight[-1] = 0.4
    freeze(model)


def freeze(model: Glm4vModel) -> None:
    """Hold the whitened patch embedding fixed.

    The pixels of a patch are strongly correlated, so that a step of Adam's usual size along
    their common brightness would swamp every other component.
    """
    model.visual.patch_embed.requires_grad_(False)


def cut(pictures: Tensor) -> Tensor:
    """Normalise pictures uint8 [P, height, width, 3] and cut them to patches in merge order."""
    count, height, width, _ = pictures.shape
    scale = torch.tensor(CLIP_STD, device=pictures.device).reciprocal() / 255
    shift = torch.tensor(CLIP_MEAN, device=pictures.device) / torch.tensor(
        CLIP_STD, device=pictures.device
    )
    pixels = pictures.float() * scale - shift
    side = PATCH * MERGE
    cells = pixels.view(count, height // side, MERGE, PATCH, width // side, MERGE, PATCH, 3)
    return cells.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, 3 * PATCH**2)
