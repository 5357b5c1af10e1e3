"""Packed attention, and pictures of mixed sizes through it as on a GPU."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.models import varlen
from forebay.models.glm4v import vision
from forebay.models.loader import load_model
from forebay.models.varlen import Bounds, attend_packed
from tests.checkpoints import TINY, write_checkpoint

CPU = torch.device("cpu")


@settings(max_examples=40, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), min_size=1, max_size=5),
    group=st.sampled_from([1, 3]),
    causal=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_packed_sequences_attend_as_each_alone(
    spans: list[tuple[int, int]], group: int, causal: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    counts, ends = [n for n, _ in spans], [n + before for n, before in spans]
    q = torch.randn(sum(counts), 2 * group, 8)
    k, v = (torch.randn(sum(ends), 2, 8) for _ in range(2))
    rows, context = Bounds.of(counts, CPU), Bounds.of(ends, CPU)
    got = attend_packed(q, k, v, rows, context, causal=causal)
    for (first, last), (begin, end) in zip(
        pairwise(rows.host), pairwise(context.host), strict=True
    ):
        keys, values = (t[begin:end].repeat_interleave(group, dim=1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[first:last], keys) / 8**0.5
        if causal:
            late = torch.ones_like(scores[0], dtype=torch.bool)
            late = late.triu(end - begin - (last - first) + 1)
            scores = scores.masked_fill(late, float("-inf"))
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), values)
        assert (got[first:last] - expected).abs().max() < 1e-5
    assert rows.longest == max(counts)


@settings(max_examples=20, deadline=None)
@given(
    tokens=st.integers(1, 40),
    before=st.integers(0, 30),
    most=st.integers(1, 900),
    seed=st.integers(0, 2**31),
)
def test_attention_in_pieces_is_that_of_all_queries_at_once(
    tokens: int, before: int, most: int, seed: int
) -> None:
    """A context grows after memory was measured, so its scores are never held all at once."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(n, 4, 8) for n in (tokens, tokens + before, tokens + before))
    rows, context = Bounds.of([tokens], CPU), Bounds.of([tokens + before], CPU)
    whole = attend_packed(q, k, v, rows, context, causal=True)
    scores: list[int] = []
    one = varlen._one

    def noted(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> torch.Tensor:
        scores.append(q.shape[0] * q.shape[1] * k.shape[0])
        return one(q, k, v, causal=causal)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen, "SCORES_AT_ONCE", most)
        patch.setattr(varlen, "_one", noted)
        got = attend_packed(q, k, v, rows, context, causal=True)
    assert max(scores) <= max(most, 4 * (tokens + before))
    assert torch.allclose(got, whole, atol=1e-5)


def test_the_gpu_s_way_through_the_vision_tower_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(write_checkpoint(tmp_path, TINY))
    grids = [(8, 8), (4, 22), (16, 2), (8, 8)]
    patches = torch.randn(sum(r * c for r, c in grids), 588)
    calls = []

    def packed(*args: object, **named: object) -> torch.Tensor:
        calls.append(named)
        return attend_packed(*args, **named)

    monkeypatch.setattr(vision, "attend_packed", packed)
    build = vision.PackedGrids.build

    def with_bounds(sizes: list[tuple[int, int]], merge: int, device: torch.device):
        bounds = Bounds.of([r * c for r, c in sizes], device)
        return replace(build(sizes, merge, device), bounds=bounds)

    with torch.inference_mode():
        plain = model.visual(patches, grids)
        assert calls == []
        monkeypatch.setattr(vision.PackedGrids, "build", staticmethod(with_bounds))
        got = model.visual(patches, grids)
    assert calls == [{"causal": False}] * TINY.vision_depth
    assert torch.allclose(got, plain, atol=1e-5)
