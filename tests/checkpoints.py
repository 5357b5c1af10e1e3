"""Writes tiny, whole, random-weight checkpoint folders. Deterministic, and without transformers.

The answers of such a model are noise, but each depends on the prompt and on every picture, which is
what tests of queue, worker and engine need.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.model import Glm4vModel

SPECIAL_TOKENS = (
    "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>",
    "<|end_of_video|>", "<|image|>", "<|video|>",
)  # fmt: skip
STOP_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")
_MERGED = ("th", "the", "in", "is", "er", "an", "Ġa", "Ġthe", "Ġis", "Ġin", "12", "what")
_SPLIT = r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """[gMASK]<sop>
{%- for msg in messages %}
    {%- if msg.role == 'system' %}
<|system|>
{{ msg.content }}
    {%- elif msg.role == 'user' %}
<|user|>{{ '\\n' }}
        {%- if msg.content is string %}
{{ msg.content }}
        {%- else %}
            {%- for item in msg.content %}
                {%- if item.type == 'image' or 'image' in item %}
<|begin_of_image|><|image|><|end_of_image|>
                {%- elif item.type == 'text' %}
{{ item.text }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
    {%- elif msg.role == 'assistant' %}
<|assistant|>
{{ msg.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""


TOOLS_TEMPLATE = """[gMASK]<sop>
{%- if tools %}
<|system|>
These functions may be called:
        {%- for tool in tools %}

{{ tool | tojson(ensure_ascii=False) }}
        {%- endfor %}

A call is written <tool_call>{function}
<arg_key>{name}</arg_key>
<arg_value>{value}</arg_value>
</tool_call>
{%- endif %}
{%- macro shown(content) %}
    {%- if content is string %}
{{- content }}
    {%- else %}
        {%- for item in content %}
            {%- if item.type == 'image' %}
<|begin_of_image|><|image|><|end_of_image|>
            {%- elif item.type == 'text' %}
{{- item.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- for msg in messages %}
    {%- if msg.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
<|observation|>
        {%- endif %}
{{- '\n<tool_response>\n' ~ shown(msg.content) ~ '\n</tool_response>' }}
    {%- else %}
<|{{ msg.role }}|>
{{ shown(msg.content) }}
        {%- for call in msg.tool_calls or [] %}
{{- '\n<tool_call>' ~ call.function.name }}
            {%- for name, value in call.function.arguments.items() %}
{{- '\n<arg_key>' ~ name ~ '</arg_key>' }}
{{- '\n<arg_value>' ~ (value if value is string else value | tojson) ~ '</arg_value>' }}
            {%- endfor %}
{{- '\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""

TOOL_MARKS = (
    "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
    "<tool_response>", "</tool_response>",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """What varies between the checkpoints of the tests."""

    architecture: str = "Glm4vForConditionalGeneration"
    hidden_size: int = 64
    intermediate_size: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    partial_rotary_factor: float = 0.5
    mrope_section: tuple[int, int, int] = (1, 1, 2)
    tie_word_embeddings: bool = False
    context: int = 4096
    vision_depth: int = 2
    vision_hidden: int = 48
    vision_heads: int = 4
    vision_intermediate: int = 96
    image_size: int = 112
    min_pixels: int = 56 * 56
    max_pixels: int = 2 * 224 * 224
    stop_tokens: tuple[str, ...] = STOP_TOKENS
    tools: bool = False


TINY = Shape()
TINY_46V = replace(TINY, architecture="Glm46VForConditionalGeneration")


def write_checkpoint(folder: Path, shape: Shape = TINY, seed: int = 0) -> Path:
    """Write a whole checkpoint folder and return it. Equal arguments write equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(TOOL_MARKS if shape.tools else ())
    config = config_dict(shape, tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation(shape, tokenizer))
    _write_json(folder / "preprocessor_config.json", preprocessor(shape))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    (folder / "chat_template.jinja").write_text(
        TOOLS_TEMPLATE if shape.tools else CHAT_TEMPLATE, encoding="utf-8"
    )
    save_file(random_weights(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_tokenizer(marks: Sequence[str] = ()) -> Tokenizer:
    """Byte-level BPE with few merges: a Chinese character is three tokens.

    ``marks``: added tokens that are none of control, as the family has those of its calls.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: at for at, piece in enumerate((*alphabet, *_MERGED, "wh", "at"))}
    merges = [("w", "h"), ("a", "t"), ("t", "h"), ("th", "e"), ("i", "n"), ("i", "s"), ("e", "r")]
    merges += [("a", "n"), ("Ġ", "a"), ("Ġ", "the"), ("Ġ", "is"), ("Ġ", "in"), ("1", "2")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[*merges, ("wh", "at")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in marks])
    return tokenizer


def config_dict(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return ``config.json`` as Hugging Face writes it."""
    model_type = "glm46v" if "46" in shape.architecture else "glm4v"
    text_type, vision_type = "glm4v_text", "glm4v_vision"
    return {
        "architectures": [shape.architecture],
        "model_type": model_type,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "image_token_id": tokenizer.token_to_id("<|image|>"),
        "video_token_id": tokenizer.token_to_id("<|video|>"),
        "image_start_token_id": tokenizer.token_to_id("<|begin_of_image|>"),
        "image_end_token_id": tokenizer.token_to_id("<|end_of_image|>"),
        "video_start_token_id": tokenizer.token_to_id("<|begin_of_video|>"),
        "video_end_token_id": tokenizer.token_to_id("<|end_of_video|>"),
        "text_config": {
            "model_type": text_type,
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": shape.context,
            "rms_norm_eps": 1e-5,
            "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
            "eos_token_id": _stop_ids(shape, tokenizer),
            "tie_word_embeddings": shape.tie_word_embeddings,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": shape.partial_rotary_factor,
                "mrope_section": list(shape.mrope_section),
            },
        },
        "vision_config": {
            "model_type": vision_type,
            "depth": shape.vision_depth,
            "hidden_size": shape.vision_hidden,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.hidden_size,
            "intermediate_size": shape.vision_intermediate,
            "image_size": shape.image_size,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
        },
    }


def random_weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Return weights whose outputs depend on their inputs, each from its own name and the seed."""
    with torch.device("meta"):
        model = Glm4vModel(Glm4vConfig.from_dict(config))
    weights = {}
    for name, like in model.state_dict().items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
        noise = torch.randn(like.shape, generator=generator)
        weights[name] = _scale(name, noise, tied=bool(config["tie_word_embeddings"]))
    return weights


def _scale(name: str, noise: torch.Tensor, *, tied: bool) -> torch.Tensor:
    if "embed_tokens" in name:
        # a loud tied embedding would make the model repeat its last token for ever
        return noise * 0.2 if tied else noise
    if noise.dim() > 1:
        return noise / math.sqrt(noise[0].numel())
    centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    return noise * 0.1 + centre


def _generation(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "do_sample": False,
        "eos_token_id": _stop_ids(shape, tokenizer),
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
    }


def _stop_ids(shape: Shape, tokenizer: Tokenizer) -> list[int]:
    ids = (tokenizer.token_to_id(token) for token in shape.stop_tokens)
    return [token_id for token_id in ids if token_id is not None]


def preprocessor(shape: Shape) -> dict[str, Any]:
    """Return what ``preprocessor_config.json`` says."""
    return {
        "image_processor_type": "Glm4vImageProcessor",
        "size": {"shortest_edge": shape.min_pixels, "longest_edge": shape.max_pixels},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
