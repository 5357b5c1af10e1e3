"""Layers with 8-bit weights, whose inputs are made 8-bit as they come.

Weights have one scale an output channel, inputs one a row. So what a row of a batch becomes does
not depend on the other rows, and an answer not on whom it was computed with.

The CPU runs the INT8 layers. No one has run the CUDA paths yet: their arithmetic is that of the
CPU ones, which the tests compare with single precision; tests/engine/test_gpu_quantized.py compares
the two where there is a GPU.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INT8_MAX = 127
FP8_MAX = 448.0
"""Largest finite number of ``float8_e4m3fn``."""

_SMALLEST_SCALE = 1e-30
"""A row of zeros is divided by this, and stays zero."""

_CUDA_ROWS = 32
"""cuBLAS multiplies INT8 matrices of more than 16 rows; fewer are padded to this many."""


def quantize_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [N, K] as int8 in -127..127, and their scales [N, 1] in single precision."""
    x = x.float()
    scale = x.abs().amax(dim=-1, keepdim=True).mul_(1 / INT8_MAX).clamp_min_(_SMALLEST_SCALE)
    return (x / scale).round_().to(torch.int8), scale


def quantize_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [N, K] as float8_e4m3fn, and their scales [N, 1] in single precision."""
    x = x.float()
    scale = x.abs().amax(dim=-1, keepdim=True).mul_(1 / FP8_MAX).clamp_min_(_SMALLEST_SCALE)
    return (x / scale).to(torch.float8_e4m3fn), scale


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors one after the other; those of 8 bits by their bits.

    Not every operation knows float8 on every device, but a copy of bytes does.
    """
    if parts[0].element_size() > 1:
        return torch.cat(list(parts))
    return torch.cat([part.view(torch.int8) for part in parts]).view(parts[0].dtype)


class QuantizedLinear(nn.Module):
    """A linear layer over 8-bit weights [out, in] with a scale an output channel [out]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @staticmethod
    @abstractmethod
    def quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows in 8 bits, and their scales."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> Self:
        """Quantize a matrix [out, in]."""
        rows, scale = cls.quantize(weight)
        return cls(rows, scale.squeeze(1), bias)

    @classmethod
    def joined(cls, parts: Sequence[QuantizedLinear]) -> Self:
        """Return one layer that says what ``parts`` say, one after the other."""
        biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
        return cls(
            concatenated([part.weight for part in parts]),
            concatenated([part.scale for part in parts]),
            torch.cat(biases) if biases else None,
        )

    @classmethod
    def stored(cls, weight: Tensor) -> Mapping[str, Tensor]:
        """Return what a matrix [out, in] is kept as, by the names of ``state_dict``."""
        rows, scale = cls.quantize(weight)
        return {"weight": rows, "scale": scale.squeeze(1)}

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out], in the type of ``x``."""
        rows, scale = self.quantize(x.reshape(-1, x.shape[-1]))
        return self._product(rows, scale, x.dtype).view(*x.shape[:-1], len(self.weight))

    @abstractmethod
    def _product(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiply quantized rows by the weights, undo both scales, add the bias."""

    def _scaled(self, product: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        out = product.float().mul_(scale)
        if self.bias is None:
            return out.mul_(self.scale).to(dtype)
        return torch.addcmul(self.bias.float(), out, self.scale, out=out).to(dtype)


class Int8Linear(QuantizedLinear):
    """Weights and inputs in INT8, sums in 32 bits: no rounding inside the product."""

    @staticmethod
    def quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows as int8, and their scales."""
        return quantize_int8(rows)

    def _product(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        return self._scaled(int8_product(rows, self.weight), scale, dtype)


class Float8Linear(QuantizedLinear):
    """Weights and inputs in FP8 (e4m3), sums in single precision."""

    @staticmethod
    def quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows as float8_e4m3fn, and their scales."""
        return quantize_fp8(rows)

    def _product(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        if rows.device.type != "cuda":  # the arithmetic, for the tests
            return self._scaled(rows.float() @ self.weight.float().t(), scale, dtype)
        out = torch._scaled_mm(  # noqa: SLF001
            rows,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale.unsqueeze(0),
            out_dtype=torch.bfloat16,
        )
        return (out if self.bias is None else out + self.bias).to(dtype)


class Int8Embedding(nn.Module):
    """An embedding table in INT8 with a scale a row."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self._dtype = dtype

    @classmethod
    def stored(cls, weight: Tensor) -> Mapping[str, Tensor]:
        """Return what a table [rows, width] is kept as, by the names of ``state_dict``."""
        return Int8Linear.stored(weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows [..., width] of ``ids``."""
        rows = F.embedding(ids, self.weight).float()
        return rows.mul_(self.scale[ids].unsqueeze(-1)).to(self._dtype)


def int8_product(rows: Tensor, weight: Tensor) -> Tensor:
    """Return ``rows @ weight.T`` of int8 matrices [N, K] and [M, K] as int32 [N, M].

    K is 2 or more: torch 2.13 misreads the strides of a transposed matrix of one column.
    """
    count = rows.shape[0]
    if rows.device.type == "cuda" and count < _CUDA_ROWS:
        rows = F.pad(rows, (0, 0, 0, _CUDA_ROWS - count))
    return torch._int_mm(rows, weight.t())[:count]  # noqa: SLF001


def fp8_failure() -> str | None:
    """Return why a CUDA device does not multiply FP8 with a scale a row; None: it does.

    Its compute capability does not tell: on some newer devices some versions of torch refuse.
    """
    x = torch.ones(16, 32, device="cuda")
    try:
        Float8Linear.of(x, None)(x)
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return None


def int8_is_exact() -> bool:
    """Whether this machine's INT8 product is right at its largest sums.

    On CPUs without VNNI, the sums of two products saturate at 16 bits in some kernels.
    """
    signs = torch.tensor([1, -1], dtype=torch.int8).repeat(32)
    rows = torch.stack((torch.full((64,), INT8_MAX, dtype=torch.int8), signs * INT8_MAX))
    found = int8_product(rows, rows)
    return torch.equal(found.double(), rows.double() @ rows.double().t())
