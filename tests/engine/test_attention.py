"""Paged attention over scattered blocks equals plain attention over each sequence."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from forebay.core.request import TaskId
from forebay.engine import attention
from forebay.engine.attention import BLOCK_ROWS, PADDING, PagedAttention, packing_order
from forebay.engine.kv_blocks import BlockPool
from forebay.engine.kv_cache import KVCache
from forebay.engine.sequence import Chunk, Sequence
from forebay.models.glm4v import layers
from forebay.models.glm4v.config import TextConfig

CONFIG = TextConfig(
    vocab_size=10,
    hidden_size=48,
    intermediate_size=8,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
)
CPU = torch.device("cpu")


def chunks_of(lengths: list[tuple[int, int]], pool: BlockPool) -> list[Chunk]:
    """Chunks from ``before`` up to ``end`` of sequences whose blocks lie scattered."""
    chunks = []
    for at, (before, end) in enumerate(lengths):
        prompt = before if end == before + 1 and before > 5 else end  # the others are prefill
        sequence = Sequence(TaskId(str(at)), [1] * prompt, (), 5, computed=before)
        sequence.tokens += [1] * (end - prompt)
        sequence.blocks = pool.take(pool.blocks_for(end)) or []
        random.Random(at).shuffle(sequence.blocks)
        chunks.append(Chunk(sequence, before, end))
    return chunks


@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_a_ragged_batch_attends_as_each_sequence_alone(block_size: int) -> None:
    lengths = [(40, 41), (3, 4), (0, 7), (9, 20), (41, 42), (0, 1), (200, 201), (5, 6)]
    assert _error(lengths, block_size) < 1e-5


@pytest.mark.parametrize("block_size", [4, 16])
def test_prefill_in_bfloat16_attends_alike(block_size: int) -> None:
    """Chunks of more rows than attend at once, from the start of a sequence and from its middle."""
    lengths = [(0, 2), (0, 300), (40, 41), (7, 9), (150, 290), (1, 130), (0, BLOCK_ROWS)]
    assert _error(lengths, block_size, narrow=True) < 0.02
    assert _error(lengths, block_size) < 1e-5


@pytest.mark.parametrize("narrow", [False, True])
def test_a_chunk_holds_a_bounded_number_of_scores_at_once(
    narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the context is that it attends to: that grows after memory was counted."""
    sizes: list[int] = []
    products = attention.products

    def noted(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        out = products(rows, columns)
        sizes.append(out.numel())
        return out

    monkeypatch.setattr(attention, "products", noted)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 6_000)
    lengths = [(0, 300), (150, 290), (1, 130), (400, 402)]
    assert _error(lengths, 16, narrow=narrow) < (0.02 if narrow else 1e-5)
    assert 3_000 < max(sizes) <= 6_000


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_prefill_through_onednn_attends_alike(
    kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As larger shapes do: these would be too small for it."""
    monkeypatch.setattr(layers, "ONEDNN_FROM", 1)
    lengths = [(0, 2), (0, 300), (40, 41), (7, 9), (150, 290), (1, 130)]
    assert _error(lengths, 16, kv_heads=kv_heads) < 1e-5


def test_a_row_in_bfloat16_does_not_depend_on_what_comes_after_it() -> None:
    pool = BlockPool(600, 16)
    cache = KVCache(CONFIG, 600, 16, torch.float32, CPU)
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 200, 6, 8, generator=generator)
    k, v = k[:, :2].contiguous(), v[:, :2].contiguous()
    (chunk,) = chunks_of([(0, 200)], pool)
    whole = PagedAttention(cache, [chunk], CPU, narrow=True)(0, q, k, v)
    short = Chunk(chunk.sequence, 0, 131)
    q, k, v = (t[:131].contiguous() for t in (q, k, v))
    part = PagedAttention(cache, [short], CPU, narrow=True)(0, q, k, v)
    assert (whole[:131] - part).abs().max().item() < 0.004  # a rounding of bfloat16, no more


@pytest.mark.parametrize("chunk", [1, 37, 128, 199])
def test_a_prompt_becomes_the_same_in_bfloat16_however_it_is_cut(chunk: int) -> None:
    """What a step has room for depends on who else is in it; the last chunk is of one token."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 200, 6, 8, generator=generator)
    k, v = k[:, :2].contiguous(), v[:, :2].contiguous()
    found = []
    for size in (200, chunk):
        pool = BlockPool(600, 16)
        cache = KVCache(CONFIG, 600, 16, torch.float32, CPU)
        (whole,) = chunks_of([(0, 200)], pool)
        parts = []
        for start in range(0, 200, size):
            one = Chunk(whole.sequence, start, min(start + size, 200))
            rows = slice(one.start, one.end)
            attend = PagedAttention(cache, [one], CPU, narrow=True)
            parts.append(attend(0, q[rows].contiguous(), k[rows], v[rows]))
        found.append(torch.cat(parts))
    assert torch.equal(*found)


def _error(
    lengths: list[tuple[int, int]], block_size: int, *, narrow: bool = False, kv_heads: int = 2
) -> float:
    """How far a batch's attention is from the textbook's, at most."""
    pool = BlockPool(600, block_size)
    config = replace(CONFIG, num_key_value_heads=kv_heads)
    cache = KVCache(config, 600, block_size, torch.float32, CPU)
    packed = packing_order(chunks_of(lengths, pool))
    generator = torch.Generator().manual_seed(0)
    whole = {
        chunk.sequence.task_id: torch.randn(3, chunk.end, 6, 8, generator=generator)
        for chunk in packed
    }
    for chunk in packed:  # what earlier steps stored
        _, k, v = whole[chunk.sequence.task_id]
        size = block_size
        slots = [chunk.sequence.blocks[at // size] * size + at % size for at in range(chunk.start)]
        cache.write(
            1, torch.tensor(slots).long(), k[: chunk.start, :kv_heads], v[: chunk.start, :kv_heads]
        )
    q, k, v = (
        torch.cat([whole[c.sequence.task_id][at, c.start : c.end] for c in packed])
        for at in range(3)
    )
    attend = PagedAttention(cache, packed, CPU, narrow=narrow)
    got = attend(1, q, k[:, :kv_heads].contiguous(), v[:, :kv_heads].contiguous())
    expected = torch.cat([_plain(*whole[c.sequence.task_id], c.start, kv_heads) for c in packed])
    return (got - expected).abs().max().item()


def _plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int, kv_heads: int
) -> torch.Tensor:
    """Textbook causal attention, some query heads a KV head."""
    shared = q.shape[1] // kv_heads
    k, v = (t[:, :kv_heads].repeat_interleave(shared, dim=1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, float("-inf")).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, v)[start:]


def test_one_long_sequence_does_not_pad_the_short_ones() -> None:
    pool = BlockPool(600, 16)
    cache = KVCache(CONFIG, 600, 16, torch.float32, CPU)
    ends = [30, 33, 40, 350, 360, 352, 2000]
    packed = packing_order(chunks_of([(end - 1, end) for end in ends], pool))
    groups = PagedAttention(cache, packed, CPU)._groups
    assert [group.end - group.start for group in groups] == [3, 3, 1]
    needed = sum(pool.blocks_for(end) for end in ends)
    gathered = sum(group.blocks.numel() for group in groups)
    assert gathered <= needed * PADDING
