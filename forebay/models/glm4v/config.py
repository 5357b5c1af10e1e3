"""The numbers of ``config.json``, as the model code wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay.models.errors import CorruptFileError, UnsupportedArchitectureError
from forebay.models.files import read_json, require_file

SUPPORTED_ARCHITECTURES = ("Glm4vForConditionalGeneration", "Glm46VForConditionalGeneration")
SUPPORTED_MODEL_TYPES = ("glm4v", "glm46v")


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """Shape of the vision tower and its projector."""

    depth: int
    hidden_size: int
    num_heads: int
    out_hidden_size: int
    intermediate_size: int
    image_size: int = 336
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    attention_bias: bool = False

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def merge_unit(self) -> int:
        """Patches that become one visual token."""
        return self.spatial_merge_size**2


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Shape of the language decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    partial_rotary_factor: float = 1.0
    mrope_section: tuple[int, ...] = (8, 12, 12)
    eos_token_ids: tuple[int, ...] = ()

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """How many of a head's dimensions are rotated."""
        return int(self.head_dim * self.partial_rotary_factor)


@dataclass(frozen=True, slots=True)
class Glm4vConfig:
    """A whole checkpoint's configuration."""

    vision: VisionConfig
    text: TextConfig
    image_token_id: int
    image_start_token_id: int
    image_end_token_id: int
    tie_word_embeddings: bool = False

    @classmethod
    def from_folder(cls, folder: Path) -> Glm4vConfig:
        """Read ``config.json`` of a checkpoint folder.

        Raises:
            MissingFileError: there is no such file.
            UnsupportedArchitectureError: the checkpoint is of another model family.
            CorruptFileError: a field is missing or has no sense.
        """
        path = require_file(folder, "config.json")
        raw = read_json(path)
        _check_architecture(path, raw)
        try:
            return cls.from_dict(raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptFileError(path, f"a needed field is missing or wrong: {error}") from error

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Glm4vConfig:
        """Build from the parsed JSON. Raises KeyError, TypeError or ValueError on bad fields."""
        text, vision = raw["text_config"], raw["vision_config"]
        return cls(
            vision=_vision(vision),
            text=_text(text, raw),
            image_token_id=int(raw["image_token_id"]),
            image_start_token_id=int(raw["image_start_token_id"]),
            image_end_token_id=int(raw["image_end_token_id"]),
            tie_word_embeddings=bool(
                raw.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
            ),
        )


def _check_architecture(path: Path, raw: Mapping[str, Any]) -> None:
    architectures = raw.get("architectures") or []
    if any(name in SUPPORTED_ARCHITECTURES for name in architectures):
        return
    if not architectures and raw.get("model_type") in SUPPORTED_MODEL_TYPES:
        return
    found = ", ".join(map(str, architectures)) or str(raw.get("model_type") or "none stated")
    raise UnsupportedArchitectureError(
        path,
        f"architecture {found} is not served here; give a checkpoint of "
        + " or ".join(SUPPORTED_ARCHITECTURES),
    )


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    _require_silu(raw, "vision_config")
    rope = raw.get("rope_parameters") or {}
    config = VisionConfig(
        depth=int(raw["depth"]),
        hidden_size=int(raw["hidden_size"]),
        num_heads=int(raw["num_heads"]),
        out_hidden_size=int(raw["out_hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        image_size=int(raw.get("image_size", 336)),
        patch_size=int(raw.get("patch_size", 14)),
        temporal_patch_size=int(raw.get("temporal_patch_size", 2)),
        spatial_merge_size=int(raw.get("spatial_merge_size", 2)),
        in_channels=int(raw.get("in_channels", 3)),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-5)),
        rope_theta=float(rope.get("rope_theta", 10000.0)),
        attention_bias=bool(raw.get("attention_bias", False)),
    )
    if config.hidden_size % config.num_heads:
        raise ValueError("vision_config.hidden_size is no multiple of num_heads")
    return config


def _text(raw: Mapping[str, Any], whole: Mapping[str, Any]) -> TextConfig:
    _require_silu(raw, "text_config")
    # Checkpoints of 2025 hold the rotary numbers flat or under rope_scaling, newer ones under
    # rope_parameters.
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        raise ValueError(f"text_config: rope type {rope_type!r} is not supported")
    heads = int(raw["num_attention_heads"])
    config = TextConfig(
        vocab_size=int(raw["vocab_size"]),
        hidden_size=int(raw["hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        num_hidden_layers=int(raw["num_hidden_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(raw.get("num_key_value_heads") or heads),
        max_position_embeddings=int(raw.get("max_position_embeddings", 32768)),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-5)),
        rope_theta=float(rope.get("rope_theta", raw.get("rope_theta", 10000.0))),
        partial_rotary_factor=float(
            rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
        ),
        mrope_section=tuple(int(n) for n in rope.get("mrope_section", (8, 12, 12))),
        eos_token_ids=_eos(raw, whole),
    )
    if sum(config.mrope_section) * 2 != config.rotary_dim:
        raise ValueError(
            f"text_config: mrope_section {config.mrope_section} does not add up to half of the "
            f"{config.rotary_dim} rotated dimensions of a head"
        )
    return config


def _eos(text: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[int, ...]:
    found = text.get("eos_token_id", whole.get("eos_token_id"))
    if found is None:
        return ()
    return tuple(int(t) for t in found) if isinstance(found, list) else (int(found),)


def _require_silu(raw: Mapping[str, Any], where: str) -> None:
    activation = raw.get("hidden_act", "silu")
    if activation != "silu":
        raise ValueError(f"{where}: activation {activation!r} is not supported, only silu")
