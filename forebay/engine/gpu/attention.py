"""Attention of a mixed step: rows of one token through block tables, chunks of prefill packed.

Decoding rows read keys and values where they lie. A chunk of prefill has hundreds of queries to
each key, so there a gathered copy of its context costs little, and torch's FlashAttention kernels
take all chunks of a step in one launch. Chunks that begin their sequences need no copy at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forebay.engine.gpu.inputs import Ints, slots_of
from forebay.engine.gpu.ops import GATHERED_TOKENS, BlockTables, Ops
from forebay.engine.kv_cache import KVCache
from forebay.engine.sequence import Chunk
from forebay.models.varlen import Bounds, attend_packed, bounds


@dataclass(frozen=True, slots=True)
class Prefill:
    """Chunks that attend in one launch: rows ``start`` up to ``end`` of the batch.

    ``gathered``: slots of all that the chunks see; None where the chunks' own keys are all.
    """

    start: int
    end: int
    rows: Bounds
    context: Bounds
    gathered: Tensor | None


@dataclass(frozen=True, slots=True)
class GpuAttention:
    """The ``StoredAttention`` of one step. ``tables``: None when no row has one token."""

    cache: KVCache
    ops: Ops
    heads: int
    slots: Tensor
    tables: BlockTables | None
    prefills: tuple[Prefill, ...] = ()

    def store(self, layer: int, qkv: Tensor, angles: tuple[Tensor, Tensor]) -> None:
        """Rotate in place, and store keys and values."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        self.ops.rotate_and_store(qkv, angles, self.slots, keys, values)

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Return [T, heads, width]."""
        parts = []
        if self.tables is not None:
            parts.append(self._decode(layer, qkv, self.tables))
        parts.extend(self._prefill(layer, qkv, prefill) for prefill in self.prefills)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decode(self, layer: int, qkv: Tensor, tables: BlockTables) -> Tensor:
        q = qkv[: tables.lengths.shape[0], : self.heads]
        return self.ops.paged_decode(q, self.cache.keys[layer], self.cache.values[layer], tables)

    def _prefill(self, layer: int, qkv: Tensor, prefill: Prefill) -> Tensor:
        rows = qkv[prefill.start : prefill.end]
        q, own = rows[:, : self.heads], rows[:, self.heads :]
        if prefill.gathered is None:
            k, v = own.chunk(2, dim=1)
        else:
            k, v = (
                cached[layer].flatten(0, 1).index_select(0, prefill.gathered)
                for cached in (self.cache.keys, self.cache.values)
            )
        return attend_packed(q, k, v, prefill.rows, prefill.context, causal=True)


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """A :class:`Prefill` before its integers are on the device."""

    start: int
    end: int
    rows: tuple[int, ...]
    context: tuple[int, ...]
    gathered: Ints | None

    @property
    def parts(self) -> list[Ints]:
        """The arrays to send."""
        sent = [np.asarray(self.rows, np.int32), np.asarray(self.context, np.int32)]
        return sent if self.gathered is None else [*sent, self.gathered]

    def on_device(self, sent: Sequence[Tensor]) -> Prefill:
        """Return the same with ``parts`` as they are on the device."""
        rows, context = Bounds(self.rows, sent[0]), Bounds(self.context, sent[1])
        gathered = None if self.gathered is None else sent[2]
        return Prefill(self.start, self.end, rows, context, gathered)


def plan_prefills(chunks: Sequence[Chunk], offset: int, block: int) -> list[PrefillPlan]:
    """Share out chunks, whose rows begin at ``offset``, over as few launches as memory allows."""
    plans: list[PrefillPlan] = []
    group: list[Chunk] = []
    seen = 0
    for chunk in chunks:
        if group and seen + chunk.end > GATHERED_TOKENS:
            plans.append(_plan(group, offset, block))
            offset, group, seen = plans[-1].end, [], 0
        group.append(chunk)
        seen += chunk.end
    return [*plans, _plan(group, offset, block)] if group else plans


def _plan(group: Sequence[Chunk], offset: int, block: int) -> PrefillPlan:
    rows = bounds([chunk.count for chunk in group])
    fresh = all(chunk.start == 0 for chunk in group)
    gathered = None if fresh else np.concatenate([slots_of(chunk, 0, block) for chunk in group])
    context = bounds([chunk.end for chunk in group])
    return PrefillPlan(offset, offset + rows[-1], rows, context, gathered)
