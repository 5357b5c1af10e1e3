"""INT8 layers whose weights lie in memory as a CPU's kernels read them.

The plain product (:func:`~forebay.models.quantized_layers.int8_product`) reads a matrix as it lies
in a checkpoint, and arranges it anew in every call: for a few rows, as a decode step has them, that
is half of its time. Here oneDNN arranges it once. Its kernels for these want inputs without a sign,
so 128 is added to them and taken off again inside the product, in whole numbers; they also undo
the weights' scales, which the plain product leaves to two more passes over the output.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from forebay.models.quantized_layers import INT8_MAX, Int8Linear, quantize_int8

_OFFSET = 128
"""What makes an int8 a uint8."""

PACKED_FROM = 3 * 2**18
"""Numbers in a matrix of the decoder from which arranging it pays.

A call costs some 20 microseconds more than the plain product's. A decode step calls every matrix
with a few rows; the vision tower has hundreds, to which that is nothing.
"""

VISION = "model.visual."

_PROBED_WIDTH = 64


class PackedInt8Linear(nn.Module):
    """What an :class:`Int8Linear` says, with its matrix arranged for this processor."""

    weight: Tensor
    scale: Tensor
    zeros: Tensor

    def __init__(self, layer: Int8Linear) -> None:
        super().__init__()
        self._sides = tuple(layer.weight.shape)
        self.register_buffer("weight", _arranged(layer.weight))
        self.register_buffer("scale", layer.scale)
        self.register_buffer("zeros", torch.zeros(self._sides[0], dtype=torch.int32))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out], in the type of ``x``."""
        outputs, inputs = self._sides
        flat = x.reshape(-1, inputs)
        if not len(flat):
            return x.new_empty(*x.shape[:-1], outputs)
        rows, scale = quantize_int8(flat)
        product = _product(_unsigned(rows), self.weight, self.scale, self.zeros)
        bias = self.bias
        out = product.mul_(scale) if bias is None else torch.addcmul(bias, product, scale)
        return out.to(x.dtype).view(*x.shape[:-1], outputs)


def pack_layers(model: nn.Module) -> None:
    """Arrange the INT8 layers of a joined model on the CPU for which that pays.

    A layer whose matrix is another module's too (a tied head's is the embedding table) stays as it
    is: the model would hold it twice. Where this processor or this torch has no such kernel, or
    one that is not exact, all stay.
    """
    layers = {name: one for name, one in model.named_modules() if isinstance(one, Int8Linear)}
    if not layers or not packing_is_exact():
        return
    shared = _shared_matrices(model)
    for name in list(layers):
        layer = layers.pop(name)  # so that its matrix goes before the next one is arranged
        if _pays(name, layer) and layer.weight.data_ptr() not in shared:
            above, _, last = name.rpartition(".")
            setattr(model.get_submodule(above), last, PackedInt8Linear(layer))


@cache
def packing_is_exact() -> bool:
    """Whether this machine multiplies arranged matrices, and rightly at their largest sums."""
    signs = torch.tensor([1, -1], dtype=torch.int8).repeat(_PROBED_WIDTH // 2)
    rows = torch.stack((torch.full((_PROBED_WIDTH,), INT8_MAX, dtype=torch.int8), signs * INT8_MAX))
    ones, zeros = torch.ones(len(rows)), torch.zeros(len(rows), dtype=torch.int32)
    try:
        found = _product(_unsigned(rows.clone()), _arranged(rows), ones, zeros)
    except (AttributeError, RuntimeError):  # a torch built without oneDNN, or another processor
        return False
    return torch.equal(found.double(), rows.double() @ rows.double().t())


def _pays(name: str, layer: Int8Linear) -> bool:
    return name.startswith(VISION) or layer.weight.numel() >= PACKED_FROM


def _shared_matrices(model: nn.Module) -> set[int]:
    """Return the addresses of the tensors that more than one module holds."""
    seen: set[int] = set()
    shared: set[int] = set()
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            address = tensor.data_ptr()
            (shared if address in seen else seen).add(address)
    return shared


def _unsigned(rows: Tensor) -> Tensor:
    """Return int8 rows with 128 added, as uint8, in their own memory."""
    return rows.view(torch.uint8).bitwise_xor_(_OFFSET)


def _arranged(matrix: Tensor) -> Tensor:
    """Return an int8 matrix [out, in] as oneDNN's kernels read it."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(matrix, None)
    return packed


def _product(rows: Tensor, weight: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """Multiply uint8 rows [N, K] by an arranged matrix, undo its scales: [N, M] in float32."""
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, _OFFSET, weight, scale, zeros,
        None, 1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    return out
