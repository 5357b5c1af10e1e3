"""An engine over random weights of the true GLM-4.6V-Flash shape, built on the device.

The speed of a dense model does not depend on what its weights say, so nothing is downloaded.
"""

from __future__ import annotations

import gc
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from forebay.engine.device import default_dtype
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.engine.memory_profile import CudaMemory
from forebay.engine.prepared import Preparer
from forebay.models.glm4v.config import Glm4vConfig, TextConfig, VisionConfig
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.quantization import Machine, Quantization, choose, replace_layers
from forebay.models.quantized_layers import Int8Embedding, QuantizedLinear
from tests.checkpoints import TINY, build_tokenizer, write_checkpoint

SOURCE = (
    "defaults of Glm4vConfig in transformers 5.17 (its documentation: the configuration of "
    "GLM-4.1V-9B-Thinking, whose architecture GLM-4.6V-Flash shares); partial_rotary_factor 0.5 "
    "and mrope_section (8, 12, 12) of the published checkpoints; a context of 131072 tokens"
)

TRUE_VISION = VisionConfig(
    depth=24,
    hidden_size=1536,
    num_heads=12,
    out_hidden_size=4096,
    intermediate_size=13696,
    image_size=336,
)
TRUE_TEXT = TextConfig(
    vocab_size=151_552,
    hidden_size=4096,
    intermediate_size=13_696,
    num_hidden_layers=40,
    num_attention_heads=32,
    num_key_value_heads=2,
    max_position_embeddings=131_072,
    partial_rotary_factor=0.5,
    mrope_section=(8, 12, 12),
)


def build_engine(
    device: torch.device,
    limits: EngineLimits,
    *,
    tiny: bool,
    quantization: Quantization = Quantization.NONE,
) -> Engine:
    """Return an engine whose answers never end by themselves.

    Raises:
        QuantizationError: the quantization does not run on this GPU; on a CPU none is refused.
    """
    memory = CudaMemory(device) if device.type == "cuda" else None
    free = 0 if memory is None else memory.free()
    preparer = _preparer(tiny=tiny)
    if memory is not None:
        choose(quantization, Machine.of(device), preparer.config, 0)
    model = random_model(preparer.config, device, quantization)
    return Engine.sized(model, preparer, frozenset(), limits, device, memory, free)


@dataclass(frozen=True, slots=True)
class Kept:
    """What engines of other limits have in common with one that is gone."""

    model: Glm4vModel
    preparer: Preparer
    kv_tokens: int

    @classmethod
    def of(cls, engine: Engine) -> Kept:
        """Keep what ``engine`` was built from."""
        model, preparer = engine._runner.model, engine._preparer  # noqa: SLF001
        return cls(model, preparer, engine.free_tokens)

    def build(self, limits: EngineLimits, device: torch.device) -> Engine:
        """Build an engine with as large a KV cache; the one before must be gone by now."""
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        sized = replace(limits, kv_tokens=self.kv_tokens)
        return Engine(self.model, self.preparer, frozenset(), sized, device)


def random_model(
    config: Glm4vConfig, device: torch.device, quantization: Quantization = Quantization.NONE
) -> Glm4vModel:
    """Return the model with weights drawn on the device, joined as the loader joins it."""
    dtype = default_dtype(device)
    with torch.device("meta"):
        model = Glm4vModel(config).to(dtype)
        if quantization is not Quantization.NONE:
            replace_layers(model, quantization, dtype, device)
    model.to_empty(device=device).requires_grad_(False).eval()
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.normal_(0, 1 / math.sqrt(weight[0].numel()))
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    for module in model.modules():
        if isinstance(module, QuantizedLinear | Int8Embedding):
            _draw(module)
    # tokens that the small tokenizer does not know are never the likeliest: others are above zero
    model.lm_head.weight[build_tokenizer().get_vocab_size() :] = 0
    model.join()
    return model


def _draw(layer: QuantizedLinear | Int8Embedding) -> None:
    """Fill the weights and scales of an 8-bit layer, a part of its rows at a time."""
    columns = layer.weight.shape[1]
    for rows, scale in zip(
        torch.split(layer.weight, 4096), torch.split(layer.scale, 4096), strict=True
    ):
        whole = torch.empty(rows.shape, device=rows.device).normal_(0, 1 / math.sqrt(columns))
        drawn = layer.stored(whole)
        rows.copy_(drawn["weight"])
        scale.copy_(drawn["scale"])


def _preparer(*, tiny: bool) -> Preparer:
    """Return the tests' tokenizer and chat template, with the true rules for pictures."""
    shape = replace(TINY, min_pixels=112 * 112, max_pixels=28 * 28 * 15_000)
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(Path(folder), shape)
        config = Glm4vConfig.from_folder(path)
        if not tiny:
            config = replace(config, text=TRUE_TEXT, vision=TRUE_VISION)
        text = config.text
        stop_ids = frozenset(text.eos_token_ids)
        return Preparer.from_folder(path, config, text.max_position_embeddings, stop_ids)


def bytes_read_a_token(model: Glm4vModel) -> int:
    """Return the bytes of weights that a decode step must read, however small its batch."""
    layers = model.model.language_model.state_dict()
    read = [tensor for name, tensor in layers.items() if not name.startswith("embed_tokens")]
    read += model.lm_head.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in read)
