"""Causal attention of a ragged batch over the paged KV cache.

Decoding sequences of similar length attend together, so that none is padded to the longest of the
batch; a chunk of prefill attends alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from forebay.engine.kv_cache import KVCache
from forebay.engine.sequence import Chunk
from forebay.models.glm4v.layers import ONEDNN, products
from forebay.models.varlen import SCORES_AT_ONCE

BLOCK_ROWS = 128
"""Queries of a chunk that attend at once, at most: fewer compute less that is masked."""

PADDING = 1.25
"""A group's longest block table is at most this times its shortest (or one block more)."""


@dataclass(frozen=True, slots=True)
class _DecodeGroup:
    """Rows ``start`` up to ``end`` of the batch, one token each, of similar context length."""

    start: int
    end: int
    blocks: Tensor
    mask: Tensor | None

    def attend(self, cache: KVCache, layer: int, q: Tensor) -> Tensor:
        rows, heads, width = q.shape
        keys, values = cache.read(layer, self.blocks, rows)
        # the query heads that share a KV head become the query's length: nothing is repeated
        grouped = q.view(rows, keys.shape[1], -1, width)
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self.mask)
        return out.reshape(rows, heads, width)


@dataclass(frozen=True, slots=True)
class _Prefill:
    """Rows ``start`` up to ``end`` of the batch: one sequence's chunk after ``before`` tokens."""

    start: int
    end: int
    blocks: Tensor
    mask: Tensor | None

    def attend(self, cache: KVCache, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.mask is None:
            keys, values = k.transpose(0, 1).unsqueeze(0), v.transpose(0, 1).unsqueeze(0)
        else:
            keys, values = cache.read(layer, self.blocks, 1)
            keys, values = (t[:, :, : self.mask.shape[-1]] for t in (keys, values))
        out = F.scaled_dot_product_attention(
            q.transpose(0, 1).unsqueeze(0),
            keys,
            values,
            attn_mask=self.mask,
            is_causal=self.mask is None,
            enable_gqa=True,
        )
        return out.squeeze(0).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class _BlockPrefill:
    """A chunk of prefill that attends in ``dtype``, some rows at a time to what is before them.

    Sums of the softmax are in single precision. A row's result does not depend on the others.
    """

    start: int
    end: int
    before: int
    blocks: Tensor
    dtype: torch.dtype

    def attend(self, cache: KVCache, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.before:
            read = cache.read(layer, self.blocks, 1)
            keys, values = (t[0, :, : self.before + len(q)] for t in read)
        else:
            keys, values = k.transpose(0, 1), v.transpose(0, 1)
        keys = keys.to(self.dtype).contiguous()
        values = values.to(self.dtype).transpose(1, 2).contiguous()
        count, heads, width = q.shape
        groups = heads // len(values)
        scaled = (q * width**-0.5).to(self.dtype).view(count, -1, groups, width).permute(1, 2, 0, 3)
        out = torch.empty_like(q)
        places = out.view(count, -1, groups, width).permute(1, 2, 0, 3)
        size = min(BLOCK_ROWS, max(1, SCORES_AT_ONCE // (heads * (self.before + count))))
        for first in range(0, count, size):
            rows = slice(first, min(first + size, count))
            seen = self.before + rows.stop
            scores = products(scaled[:, :, rows].flatten(1, 2), keys[:, :seen])
            scores = scores.view(len(values), groups, -1, seen)
            scores[..., self.before + first :] += _later(rows.stop - first, q.device, self.dtype)
            weights = scores.softmax(-1).flatten(1, 2)
            places[:, :, rows] = (
                products(weights, values[..., :seen])
                .view(len(values), groups, -1, width)
                .to(q.dtype)
            )
        return out


@functools.lru_cache(maxsize=BLOCK_ROWS)
def _later(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Mask [count, count] to add to scores: no row sees a later one."""
    with torch.inference_mode(mode=False):
        mask = torch.full((count, count), -math.inf, dtype=dtype, device=device)
        return mask.triu(1)


class PagedAttention:
    """The ``Attend`` of one step. Built once a step, called once a layer.

    The batch is packed in the order of ``chunks``: those that decode first, by length.
    ``narrow``: chunks of prefill attend in bfloat16.
    """

    def __init__(
        self,
        cache: KVCache,
        chunks: Sequence[Chunk],
        device: torch.device,
        *,
        narrow: bool = False,
    ) -> None:
        self._cache = cache
        self._device = device
        self._slots = self._write_slots(chunks)
        unused = self._unused_slots(chunks)
        if unused:
            cache.clear(torch.tensor(unused, device=device))
        singles = sum(1 for chunk in chunks if chunk.decodes)
        self._groups = self._decode_groups(chunks[:singles])
        self._prefills = self._prefill_chunks(chunks[singles:], singles, narrow=narrow)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the new keys and values, attend; see ``forebay.models.glm4v.text.Attend``."""
        self._cache.write(layer, self._slots, k, v)
        if len(self._groups) + len(self._prefills) == 1 and self._groups:
            return self._groups[0].attend(self._cache, layer, q)
        out = torch.empty_like(q)
        for group in self._groups:
            rows = slice(group.start, group.end)
            out[rows] = group.attend(self._cache, layer, q[rows])
        for chunk in self._prefills:
            rows = slice(chunk.start, chunk.end)
            out[rows] = chunk.attend(self._cache, layer, q[rows], k[rows], v[rows])
        return out

    def _write_slots(self, chunks: Sequence[Chunk]) -> Tensor:
        size = self._cache.block_size
        slots = [
            chunk.sequence.blocks[at // size] * size + at % size
            for chunk in chunks
            for at in range(chunk.start, chunk.end)
        ]
        return torch.tensor(slots, device=self._device)

    def _unused_slots(self, chunks: Sequence[Chunk]) -> list[int]:
        """Return the slots after the end of each chunk in a block that it is the first to write."""
        size = self._cache.block_size
        return [
            chunk.sequence.blocks[chunk.end // size] * size + at
            for chunk in chunks
            if chunk.end % size and chunk.end // size * size >= chunk.start
            for at in range(chunk.end % size, size)
        ]

    def _decode_groups(self, chunks: Sequence[Chunk]) -> list[_DecodeGroup]:
        size = self._cache.block_size
        groups: list[_DecodeGroup] = []
        start = 0
        while start < len(chunks):
            shortest = -(-chunks[start].end // size)
            limit = max(shortest + 1, int(shortest * PADDING)) * size
            end = start + 1
            while end < len(chunks) and chunks[end].end <= limit:
                end += 1
            groups.append(self._decode_group(chunks[start:end], start))
            start = end
        return groups

    def _decode_group(self, chunks: Sequence[Chunk], start: int) -> _DecodeGroup:
        size = self._cache.block_size
        longest = -(-chunks[-1].end // size)
        table: list[int] = []
        for chunk in chunks:
            own = chunk.sequence.blocks[: -(-chunk.end // size)]
            table.extend(own)
            table.extend([own[0]] * (longest - len(own)))  # masked: any block will do
        lengths = torch.tensor([chunk.end for chunk in chunks], device=self._device)
        columns = torch.arange(longest * size, device=self._device)
        mask = (columns < lengths[:, None])[:, None, None, :]
        return _DecodeGroup(
            start, start + len(chunks), torch.tensor(table, device=self._device), mask
        )

    def _prefill_chunks(
        self, chunks: Sequence[Chunk], offset: int, *, narrow: bool
    ) -> list[_Prefill | _BlockPrefill]:
        prefills: list[_Prefill | _BlockPrefill] = []
        in_blocks = narrow or (ONEDNN and self._cache.keys.dtype == torch.float32)
        dtype = torch.bfloat16 if narrow else torch.float32
        for chunk in chunks:
            blocks = chunk.sequence.blocks[: -(-chunk.end // self._cache.block_size)]
            table = torch.tensor(blocks, device=self._device)
            rows = offset, offset + chunk.count
            prefills.append(
                _BlockPrefill(*rows, chunk.start, table, dtype)
                if in_blocks and self._device.type == "cpu"
                else _Prefill(*rows, table, self._causal(chunk))
            )
            offset += chunk.count
        return prefills

    def _causal(self, chunk: Chunk) -> Tensor | None:
        """Mask of a chunk that has tokens before it; None for one that begins its sequence."""
        if chunk.start == 0:
            return None
        rows = torch.arange(chunk.start, chunk.end, device=self._device)
        return torch.arange(chunk.end, device=self._device) <= rows[:, None]


def packing_order(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return chunks as attention wants them: those that decode by length, then prefill.

    How a prompt is cut into chunks depends on the rest of the batch, what its tokens become must
    not: so a chunk of one token attends as the larger ones do, which may be in another type.
    """
    return sorted(chunks, key=lambda chunk: (not chunk.decodes, chunk.end if chunk.decodes else 0))
