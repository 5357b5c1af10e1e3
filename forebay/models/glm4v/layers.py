"""Pieces that the vision tower and the decoder share."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forebay.models.quantized_layers import QuantizedLinear

_ONEDNN_BUILT: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
ONEDNN = _ONEDNN_BUILT and platform.machine() in ("x86_64", "AMD64")
"""Whether products in single precision may go to oneDNN; see docs/adr/0020."""

ONEDNN_FROM = 2**22
"""Multiply-adds from which oneDNN is worth its dearer call."""


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Linear(nn.Linear):
    """A linear layer whose inference in single precision is fast on every x86 CPU.

    Torch's product goes to a library that leaves half of the vector width of other makers' CPUs
    unused; oneDNN, which torch carries as well, does not.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name for it)
        """Map [..., in_features] to [..., out_features]."""
        if _onednn_pays(input, self.weight):
            return _onednn(input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)


def product(rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``rows @ columns.T`` of [N, K] and [M, K]."""
    return _onednn(rows, columns, None) if _onednn_pays(rows, columns) else rows @ columns.t()


def products(rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``rows @ columns.T`` of each pair of [H, N, K] and [H, M, K], as [H, N, M]."""
    if not _onednn_pays(rows[0], columns[0]):
        return torch.bmm(rows, columns.transpose(1, 2))
    pairs = zip(rows, columns, strict=True)
    return torch.stack([_onednn(one, other.contiguous(), None) for one, other in pairs])


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    return out


def _onednn_pays(x: Tensor, weight: Tensor) -> bool:
    if not ONEDNN or torch.is_grad_enabled() or x.device.type != "cpu":
        return False
    multiply_adds = x.numel() * weight.shape[0]
    return x.dtype == weight.dtype == torch.float32 and multiply_adds >= ONEDNN_FROM


def joined(parts: Sequence[nn.Linear | QuantizedLinear]) -> nn.Module:
    """Return one layer that says what ``parts``, layers of one input, say one after the other.

    Raises:
        ValueError: not all of them are 8-bit in the same way, or only some have a bias.
    """
    biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
    if len(biases) not in (0, len(parts)):
        raise ValueError(f"{len(biases)} of {len(parts)} layers have a bias: they cannot be joined")
    quantized = [part for part in parts if isinstance(part, QuantizedLinear)]
    if quantized:
        if len(quantized) < len(parts) or len(set(map(type, parts))) > 1:
            raise ValueError("an 8-bit layer can be joined to others of its own kind only")
        return type(quantized[0]).joined(quantized)
    weights: list[Tensor] = [part.weight for part in parts]
    return linear_of(torch.cat(weights), torch.cat(biases) if biases else None)


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    """Return the layer of a matrix [out, in] and a bias [out]."""
    rows, columns = weight.shape
    layer = Linear(columns, rows, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=bias.requires_grad)
    return layer


class GatedMLP(nn.Module):
    """Gated MLP whose gate and up projection are two matrices in a checkpoint."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, inner, bias=False)
        self.up_proj = Linear(width, inner, bias=False)
        self.down_proj = Linear(inner, width, bias=False)
        self.gate_up_proj: nn.Module | None = None

    def join(self) -> None:
        """Make the gate and the up projection one matrix, for inference."""
        self.gate_up_proj = joined((self.gate_proj, self.up_proj))
        del self.gate_proj, self.up_proj

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, width] to [N, width]."""
        if self.gate_up_proj is None:
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out
