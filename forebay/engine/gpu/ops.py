"""What the decoder does between its matrix products, and a version of it in plain torch.

:class:`TorchOps` is for machines without Triton and for the tests; its twin
``forebay.engine.gpu.triton_ops.TritonOps`` says the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

GATHERED_TOKENS = 16_384
"""Context that is gathered at once for several sequences; a longer one goes alone."""


@dataclass(frozen=True, slots=True)
class BlockTables:
    """Where the context of each decoding row lies. All tensors are int32 on the device.

    Row ``r`` has ``lengths[r]`` tokens, in the cache blocks ``flat[starts[r]:]``. ``longest``:
    the greatest length, known to the host.
    """

    flat: Tensor
    starts: Tensor
    lengths: Tensor
    longest: int


class Ops(Protocol):
    """The operations, over packed rows [T, ...].

    Tensors are contiguous, but for the rows of ``q`` in :meth:`paged_decode`.
    """

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph can hold them: no shape or value is read back by the host."""
        ...

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Linear layer: rows [T, in] times the transpose of ``weight`` [out, in]."""
        ...

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Root-mean-square norm of rows."""
        ...

    def add_norm(
        self, x: Tensor, branch: Tensor, branch_weight: Tensor, next_weight: Tensor, eps: float
    ) -> Tensor:
        """Add the normed ``branch`` to ``x`` in place; return the norm of the sum."""
        ...

    def gated(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up of rows [gate | up]."""
        ...

    def rotate_and_store(
        self,
        qkv: Tensor,
        angles: tuple[Tensor, Tensor],
        slots: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> None:
        """Rotate the queries and keys of ``qkv`` in place, and store keys and values.

        Args:
            qkv: [T, heads + 2 kv heads, width], queries first, values last.
            angles: cosines and sines of each pair of neighbouring dimensions, fp32 [T, pairs].
            slots: int32 [T], block times block size plus offset.
            keys: one layer's, [blocks, block, kv heads, width].
            values: likewise.
        """
        ...

    def paged_decode(self, q: Tensor, keys: Tensor, values: Tensor, tables: BlockTables) -> Tensor:
        """Attend from one token a row [B, heads, width] over its whole context."""
        ...


class TorchOps:
    """Plain torch, on any device."""

    capturable = False

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See :class:`Ops`."""
        return F.linear(x, weight, bias)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See :class:`Ops`."""
        return F.rms_norm(x, (x.shape[-1],), weight, eps)

    def add_norm(
        self, x: Tensor, branch: Tensor, branch_weight: Tensor, next_weight: Tensor, eps: float
    ) -> Tensor:
        """See :class:`Ops`."""
        x += self.norm(branch, branch_weight, eps)
        return self.norm(x, next_weight, eps)

    def gated(self, gate_up: Tensor) -> Tensor:
        """See :class:`Ops`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def rotate_and_store(
        self,
        qkv: Tensor,
        angles: tuple[Tensor, Tensor],
        slots: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> None:
        """See :class:`Ops`."""
        cos, sin = (t.unsqueeze(1) for t in angles)
        kv_heads = keys.shape[2]
        turning = qkv[:, :-kv_heads, : 2 * cos.shape[-1]]
        even, odd = turning[..., 0::2].float(), turning[..., 1::2].float()
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
        turning.copy_(turned.flatten(-2))
        at = slots.long()
        keys.flatten(0, 1).index_copy_(0, at, qkv[:, -2 * kv_heads : -kv_heads])
        values.flatten(0, 1).index_copy_(0, at, qkv[:, -kv_heads:])

    def paged_decode(self, q: Tensor, keys: Tensor, values: Tensor, tables: BlockTables) -> Tensor:
        """See :class:`Ops`; each row is padded to the longest, so few long ones go together."""
        step = max(1, GATHERED_TOKENS // tables.longest)
        parts = zip(
            torch.split(q, step),
            torch.split(tables.starts, step),
            torch.split(tables.lengths, step),
            strict=True,
        )
        own = (
            (part, BlockTables(tables.flat, starts, lengths, tables.longest))
            for part, starts, lengths in parts
        )
        return torch.cat([self._decode(part, keys, values, table) for part, table in own])

    @staticmethod
    def _decode(q: Tensor, keys: Tensor, values: Tensor, tables: BlockTables) -> Tensor:
        rows, heads, width = q.shape
        block, kv_heads = keys.shape[1:3]
        tokens = torch.arange(tables.longest, device=q.device)
        held = tokens < tables.lengths[:, None]
        entry = (tables.starts[:, None] + tokens // block) * held
        slots = tables.flat[entry.long()].long() * block + tokens % block
        # what is masked is multiplied by zero: it must not be another row's NaN
        slots = torch.where(held, slots, slots[:, :1])
        k, v = (
            t.flatten(0, 1)[slots].transpose(1, 2) for t in (keys, values)
        )  # [rows, kv heads, longest, width]
        grouped = q.reshape(rows, kv_heads, -1, width)
        out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=held[:, None, None, :])
        return out.reshape(rows, heads, width)
