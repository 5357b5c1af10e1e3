"""What the decoder does between its matrix products, in two versions that say the same thing.

:class:`TritonOps` is for CUDA; :class:`TorchOps` is its twin in plain torch, for machines without
Triton and for the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


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
        """See :class:`Ops`."""
        rows, heads, width = q.shape
        block, kv_heads = keys.shape[1:3]
        tokens = torch.arange(tables.longest, device=q.device)
        held = tokens < tables.lengths[:, None]
        entry = (tables.starts[:, None] + tokens // block) * held
        slots = tables.flat[entry.long()].long() * block + tokens % block
        k, v = (
            t.flatten(0, 1)[slots * held].transpose(1, 2) for t in (keys, values)
        )  # [rows, kv heads, longest, width]
        grouped = q.reshape(rows, kv_heads, -1, width)
        out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=held[:, None, None, :])
        return out.reshape(rows, heads, width)


class TritonOps:
    """One kernel each, two for attention. ``processors``: multiprocessors of the device."""

    capturable = True

    def __init__(self, processors: int) -> None:
        from forebay.engine.gpu import kernels  # noqa: PLC0415 (Triton is not everywhere)

        self._kernels: Any = kernels
        self._processors = processors

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See :class:`Ops`."""
        return self._norms(x, None, weight, weight, eps)

    def add_norm(
        self, x: Tensor, branch: Tensor, branch_weight: Tensor, next_weight: Tensor, eps: float
    ) -> Tensor:
        """See :class:`Ops`."""
        return self._norms(x, branch, branch_weight, next_weight, eps)

    def _norms(
        self,
        x: Tensor,
        branch: Tensor | None,
        branch_weight: Tensor,
        next_weight: Tensor,
        eps: float,
    ) -> Tensor:
        size = x.shape[-1]
        normed = torch.empty_like(x)
        self._kernels.add_norms[(x.shape[0],)](
            x,
            x if branch is None else branch,
            branch_weight,
            next_weight,
            normed,
            eps,
            SIZE=size,
            PADDED=_padded(size),
            BRANCH=branch is not None,
            num_warps=8,
        )
        return normed

    def gated(self, gate_up: Tensor) -> Tensor:
        """See :class:`Ops`."""
        rows, size = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, size)
        tile = 1024
        self._kernels.gated_silu[(rows, -(-size // tile))](gate_up, out, SIZE=size, TILE=tile)
        return out

    def rotate_and_store(
        self,
        qkv: Tensor,
        angles: tuple[Tensor, Tensor],
        slots: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> None:
        """See :class:`Ops`."""
        kv_heads, width = keys.shape[2:]
        pairs = angles[0].shape[-1]
        self._kernels.rotate_and_store[(qkv.shape[0], qkv.shape[1])](
            qkv,
            *angles,
            slots,
            keys,
            values,
            HEADS=qkv.shape[1] - 2 * kv_heads,
            KV_HEADS=kv_heads,
            WIDTH=width,
            WIDTH_PADDED=_padded(width),
            PAIRS=pairs,
            PAIRS_PADDED=_padded(pairs),
            num_warps=1,
        )

    def paged_decode(self, q: Tensor, keys: Tensor, values: Tensor, tables: BlockTables) -> Tensor:
        """See :class:`Ops`."""
        rows, heads, width = q.shape
        block, kv_heads = keys.shape[1:3]
        splits = splits_for(rows * kv_heads, self._processors)
        partial = q.new_empty(rows, heads, splits, width, dtype=torch.float32)
        weights = q.new_empty(rows, heads, splits, dtype=torch.float32)
        out = q.new_empty(rows, heads, width)
        group = heads // kv_heads
        shape = {"WIDTH": width, "WIDTH_PADDED": max(16, _padded(width)), "SPLITS": splits}
        tile = 64 if q.element_size() == 2 else 32
        self._kernels.paged_decode[(rows, kv_heads, splits)](
            q,
            keys,
            values,
            tables.flat,
            tables.starts,
            tables.lengths,
            partial,
            weights,
            1 / math.sqrt(width) * math.log2(math.e),
            Q_STRIDE=q.stride(0),
            KV_HEADS=kv_heads,
            GROUP=group,
            GROUP_PADDED=max(16, _padded(group)),
            BLOCK=block,
            TILE=tile,
            num_stages=2,
            **shape,
        )
        self._kernels.combine[(rows, heads)](
            partial, weights, tables.lengths, out, HEADS=heads, TILE=tile, num_warps=2, **shape
        )
        return out


MOST_SPLITS = 32


def splits_for(programs: int, processors: int) -> int:
    """Return how many parts a context is read in: a power of two that keeps a device busy.

    Args:
        programs: rows times KV heads, which work in parallel anyway.
        processors: multiprocessors of the device; two programs each are aimed at.
    """
    wanted = -(-2 * processors // programs)
    return min(MOST_SPLITS, _padded(wanted))


def _padded(size: int) -> int:
    """Return the least power of two that is no less: Triton's shapes are powers of two."""
    return 1 << (size - 1).bit_length()
