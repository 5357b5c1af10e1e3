"""Which layers of a model are kept in 8 bits, and whether that pays on this machine.

What becomes 8 bits: every linear layer of the vision tower, the projector (its merging convolution
too, which is a matrix product over one cell) and the decoder; with INT8 also the embedding table,
a scale a row, and the head.

What stays in floating point, by accuracy: the patch embedding, which sees raw pixels and of whose
rounding every later layer would suffer, and the table of positions, which is sampled between its
rows. With FP8 the embedding table and the head stay too. Norms, biases, the decoder's attention and
the KV cache are not touched. The vision tower's attention over large pictures is done in bfloat16
beside INT8 weights, where the processor multiplies that: the rest having become fast, it would take
two thirds of the tower's time in single precision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor, nn

from forebay.models.errors import QuantizationError
from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.glm4v.vision import VisionAttention
from forebay.models.quantized_layers import (
    Float8Linear,
    Int8Embedding,
    Int8Linear,
    QuantizedLinear,
    concatenated,
    fp8_failure,
    int8_is_exact,
)

PAYS_FROM_HIDDEN = 256
"""Hidden size of a decoder from which INT8 is the CPU's default.

In narrower models, making the inputs 8-bit costs as much as the smaller products save.
"""

FP8_CAPABILITY = (8, 9)
CUDA_MULTIPLE = 16
"""Sides of an 8-bit matrix that CUDA's kernels multiply."""

PIECE = 2**25
"""Numbers of a matrix that become 8 bits at once: 128 MiB in single precision."""

HEADROOM = 1.5
"""Device memory wanted for a model, as a multiple of its weights: activations and KV cache."""

EMBEDDING = "model.language_model.embed_tokens"
HEAD = "lm_head"

_JOINED = re.compile(r"(?<=\.)[qkv](?=_proj$)|(?<=\.)(gate|up)(?=_proj$)")
"""Layers of one input, which are made one matrix (:meth:`Glm4vModel.join`): all of them, or none,
are 8-bit.
"""

_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_BF16 = frozenset({"avx512_bf16", "amx_bf16"})
_CPUINFO = Path("/proc/cpuinfo")


class Quantization(StrEnum):
    """How a model's matrices are kept; ``AUTO``: as suits the machine."""

    AUTO = "auto"
    NONE = "none"
    INT8 = "int8"
    FP8 = "fp8"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choice hangs on. ``free_bytes`` and ``capability`` are a GPU's."""

    device: str
    int8_products: bool = False
    capability: tuple[int, int] = (0, 0)
    free_bytes: int = 0

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """Look at the machine."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            capability = torch.cuda.get_device_capability(device)
            return cls("cuda", int8_products=True, capability=capability, free_bytes=free)
        return cls(device.type, int8_products=bool(_VNNI & _cpu_flags()))


@dataclass(frozen=True, slots=True)
class Choice:
    """A quantization and, for the log, why."""

    quantization: Quantization
    reason: str


def choice_for(folder: Path, asked: Quantization, device: torch.device) -> Choice:
    """Return the quantization to load a checkpoint folder with on this machine.

    Raises:
        QuantizationError: the one that was asked for does not run here.
        CheckpointError: the folder's configuration cannot be read.
    """
    config = Glm4vConfig.from_folder(folder)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return choose(asked, Machine.of(device), config, weights)


def choose(asked: Quantization, machine: Machine, config: Glm4vConfig, weights: int) -> Choice:
    """Return the quantization to load a checkpoint of so many bytes of ``weights`` with.

    Raises:
        QuantizationError: the one that was asked for does not run on this machine.
    """
    if asked is not Quantization.AUTO:
        _check(asked, machine)
        return Choice(asked, "asked for")
    if machine.device == "cuda":
        return _on_cuda(machine, weights)
    if not machine.int8_products:
        return Choice(Quantization.NONE, "this processor has no VNNI instructions")
    hidden = config.text.hidden_size
    if hidden < PAYS_FROM_HIDDEN:
        return Choice(Quantization.NONE, f"a model {hidden} wide is as fast without")
    return Choice(Quantization.INT8, "the processor has VNNI instructions")


def _on_cuda(machine: Machine, weights: int) -> Choice:
    if weights * HEADROOM <= machine.free_bytes:
        return Choice(Quantization.NONE, "the weights fit the device as they are")
    return Choice(Quantization.INT8, "the weights as they are would not fit the device")


def _check(asked: Quantization, machine: Machine) -> None:
    if asked is Quantization.FP8 and machine.capability < FP8_CAPABILITY:
        needed = ".".join(map(str, FP8_CAPABILITY))
        raise QuantizationError(
            f"quantization fp8 needs a CUDA device of compute capability {needed} or more; "
            "choose int8, none or auto"
        )
    if asked is Quantization.FP8 and (failure := fp8_failure()) is not None:
        raise QuantizationError(
            f"quantization fp8: this torch does not multiply FP8 on this device ({failure}); "
            "choose int8, none or auto"
        )
    if asked is Quantization.INT8 and machine.device == "cpu" and not int8_is_exact():
        raise QuantizationError(
            "quantization int8: this processor's 8-bit products overflow; choose none or auto"
        )


def replace_layers(
    model: Glm4vModel, kind: Quantization, dtype: torch.dtype, device: torch.device
) -> dict[str, Conversion]:
    """Put 8-bit layers into an empty model; return what each of their weights is stored as.

    Args:
        model: a model on the device "meta".
        kind: not ``AUTO``.
        dtype: the floating type of what is not quantized.
        device: where the model is to run.

    Returns:
        By the weight's name in the checkpoint: from the weight to the tensors of the new layer.
    """
    conversions: dict[str, Conversion] = {}
    found = ((name, _replacement(name, one, kind, dtype)) for name, one in model.named_modules())
    layers = {name: layer for name, layer in found if layer is not None}
    if device.type == "cuda":
        refused = {_matrix_of(name) for name, layer in layers.items() if not _fits_cuda(layer)}
        layers = {name: one for name, one in layers.items() if _matrix_of(name) not in refused}
    for name, layer in layers.items():
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], layer)
        conversions[f"{name}.weight"] = Conversion(name, type(layer).stored)
    narrow = kind is Quantization.INT8 and device.type == "cpu" and bool(_BF16 & _cpu_flags())
    for module in model.modules():
        if isinstance(module, Glm4vModel | VisionAttention):
            module.narrow = narrow
    return conversions


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the weight of the layer ``name`` is stored."""

    name: str
    stored: Callable[[Tensor], Mapping[str, Tensor]]

    def __call__(self, weight: Tensor, device: torch.device | str) -> dict[str, Tensor]:
        """Return the layer's tensors, on ``device``, by their full names.

        A kernel is taken as a matrix. Rows are independent, so they go in pieces: the whole of a
        large model's embedding table in single precision, three times over, would need more
        memory than a small card has left beside the model.
        """
        matrix = weight.flatten(1)
        rows = max(1, PIECE // matrix.shape[1])
        pieces = [self.stored(piece.to(device).float()) for piece in torch.split(matrix, rows)]
        return {
            f"{self.name}.{part}": concatenated([piece[part] for piece in pieces])
            for part in pieces[0]
        }


def _replacement(
    name: str, module: nn.Module, kind: Quantization, dtype: torch.dtype
) -> QuantizedLinear | Int8Embedding | None:
    """Return the empty 8-bit layer in the place of a module, None where the module stays."""
    match kind, module:
        case Quantization.INT8, nn.Embedding() if name == EMBEDDING:
            return Int8Embedding(*_empty(module.weight, torch.int8), dtype)
        case Quantization.INT8, nn.Linear() | nn.Conv2d():
            return Int8Linear(*_empty(module.weight, torch.int8), module.bias)
        case Quantization.FP8, nn.Linear() | nn.Conv2d() if name != HEAD:
            return Float8Linear(*_empty(module.weight, torch.float8_e4m3fn), module.bias)
    return None


def _fits_cuda(layer: QuantizedLinear | Int8Embedding) -> bool:
    """Whether CUDA multiplies a matrix; an embedding table may be a tied head's matrix too."""
    return not any(side % CUDA_MULTIPLE for side in layer.weight.shape)


def _matrix_of(name: str) -> str:
    """Return what a layer shares with those that it becomes one matrix with, if there are any."""
    return _JOINED.sub("", name)


def _empty(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    matrix = weight.flatten(1)
    return matrix.to(dtype), torch.empty(len(matrix), device=weight.device)


def _cpu_flags() -> frozenset[str]:
    """Return the processor's features as Linux lists them; none on other systems."""
    try:
        lines = _CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())
