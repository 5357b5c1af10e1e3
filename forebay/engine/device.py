"""Which device an engine runs on, and in which floating type."""

from __future__ import annotations

import torch

from forebay.models.glm4v.model import Glm4vModel


def device_named(name: str) -> torch.device:
    """Return the device of that name; "auto": CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def default_dtype(device: torch.device) -> torch.dtype:
    """Return single precision for a CPU; bfloat16 for a GPU, or half where it has none."""
    if device.type == "cpu":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def model_dtype(model: Glm4vModel) -> torch.dtype:
    """Return the floating type that a model computes in, whatever its weights are kept in."""
    return model.model.language_model.norm.weight.dtype
