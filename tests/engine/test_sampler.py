from __future__ import annotations

from collections import Counter

import pytest
import torch

from forebay.core.request import SamplingParams
from forebay.engine.sampler import sample

GREEDY = SamplingParams()


def warm(temperature: float = 1.0, top_p: float = 1.0) -> SamplingParams:
    return SamplingParams(temperature=temperature, top_p=top_p)


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert sample(logits, [(GREEDY, 0, 0), (GREEDY, 9, 4)]) == [1, 0]


def test_the_same_seed_draws_the_same_whatever_else_is_in_the_batch() -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    choice = (warm(1.3, 0.9), 1234, 7)
    alone = sample(logits[2:3], [choice])
    others = [(GREEDY, 0, 0), (warm(), 5, 1), choice, (warm(0.1), 6, 2), (GREEDY, 0, 0)]
    assert sample(logits[:5], others)[2] == alone[0]


def test_seeds_and_places_draw_differently() -> None:
    logits = torch.zeros(1, 1000)
    drawn = {sample(logits, [(warm(), seed, at)])[0] for seed in range(10) for at in range(10)}
    assert len(drawn) > 80


def test_draws_follow_the_distribution() -> None:
    share = torch.tensor([0.5, 0.3, 0.2])
    rows = 6000
    logits = share.log().expand(rows, 3)
    counts = Counter(sample(logits, [(warm(), 1, at) for at in range(rows)]))
    for token, expected in enumerate(share.tolist()):
        assert counts[token] / rows == pytest.approx(expected, abs=0.03)


def test_temperature_flattens_or_sharpens() -> None:
    logits = torch.tensor([[1.0, 0.0]]).expand(2000, 2)
    cold = Counter(sample(logits, [(warm(0.2), 1, at) for at in range(2000)]))
    hot = Counter(sample(logits, [(warm(5.0), 1, at) for at in range(2000)]))
    assert cold[0] > 1950
    assert 1000 < hot[0] < 1250


@pytest.mark.parametrize(
    ("top_p", "allowed"), [(0.0, {3}), (0.39, {3}), (0.6, {3, 1}), (0.95, {3, 1, 0, 2})]
)
def test_top_p_keeps_the_fewest_likeliest_tokens(top_p: float, allowed: set[int]) -> None:
    logits = torch.tensor([0.2, 0.3, 0.1, 0.4]).log().expand(500, 4)
    drawn = set(sample(logits, [(warm(1.0, top_p), 3, at) for at in range(500)]))
    assert drawn == allowed
