from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.core.request import SamplingParams
from forebay.engine import sampler
from forebay.engine.penalties import TokenCounts, is_penalised
from forebay.engine.sampler import Row, sample

GREEDY = SamplingParams()


def warm(**params: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.0, **params})


def choose(logits: torch.Tensor, rows: list[Row]) -> list[int]:
    return [one.token for one in sample(logits, rows)]


def draws(shares: list[float], count: int, params: SamplingParams, **row: Any) -> Counter[int]:
    logits = torch.tensor(shares).log().expand(count, len(shares))
    return Counter(choose(logits, [Row(params, 1, at, **row) for at in range(count)]))


def bits(allowed: set[int], size: int) -> bytes:
    may = np.zeros(-(-size // 32) * 32, dtype=bool)
    may[list(allowed)] = True
    return np.packbits(may, bitorder="little").tobytes()


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert choose(logits, [Row(GREEDY), Row(GREEDY, 9, 4)]) == [1, 0]


def test_seeds_places_and_answers_draw_differently() -> None:
    logits = torch.zeros(1, 1000)
    drawn = {
        choose(logits, [Row(warm(), seed, position, index)])[0]
        for seed in range(5)
        for position in range(5)
        for index in range(5)
    }
    assert len(drawn) > 100


def test_draws_follow_the_distribution() -> None:
    counts = draws([0.5, 0.3, 0.2], 6000, warm())
    for token, expected in enumerate([0.5, 0.3, 0.2]):
        assert counts[token] / 6000 == pytest.approx(expected, abs=0.03)


def test_draws_within_a_cut_keep_their_proportions() -> None:
    counts = draws([0.2, 0.4, 0.1, 0.3], 6000, warm(top_k=2))
    assert set(counts) == {1, 3}
    assert counts[1] / 6000 == pytest.approx(4 / 7, abs=0.03)


def test_temperature_flattens_or_sharpens() -> None:
    shares = [math.e / (1 + math.e), 1 / (1 + math.e)]
    assert draws(shares, 2000, warm(temperature=0.2))[0] > 1950
    assert 1000 < draws(shares, 2000, warm(temperature=5.0))[0] < 1250


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 1e-30, 1e-6])
@pytest.mark.parametrize("cut", [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}])
def test_a_temperature_near_zero_is_all_but_greedy(temperature: float, cut: dict) -> None:
    assert set(draws([0.2, 0.5, 0.3], 50, warm(temperature=temperature, **cut))) == {1}


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_p": 1e-9}, {3}),
        ({"top_p": 0.39}, {3}),
        ({"top_p": 0.6}, {3, 1}),
        ({"top_p": 0.95}, {3, 1, 0, 2}),
        ({"top_k": 1}, {3}),
        ({"top_k": 3}, {3, 1, 0}),
        ({"top_k": 1000}, {3, 1, 0, 2}),
        ({"min_p": 1.0}, {3}),
        ({"min_p": 0.7}, {3, 1}),
        ({"min_p": 0.01}, {3, 1, 0, 2}),
        # the share that top_p asks for is of what the other two have left: 0.4 + 0.3 is all there
        ({"top_k": 2, "top_p": 0.57}, {3}),
        ({"top_k": 2, "top_p": 0.99}, {3, 1}),
        ({"min_p": 0.7, "top_p": 0.57}, {3}),
        ({"min_p": 0.7, "top_k": 3}, {3, 1}),
    ],
)
@pytest.mark.parametrize("few", [1, 2, 1024])
def test_cuts_keep_the_likeliest_tokens(
    params: dict, kept: set[int], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_FEW", few)
    assert set(draws([0.2, 0.3, 0.1, 0.4], 500, warm(**params))) == kept


@pytest.mark.parametrize("few", [2, 6])
def test_top_p_is_a_share_of_a_top_k_that_is_more_than_is_ordered_at_first(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_FEW", few)
    # the first holds 0.45 of the 0.8 that three have left; of all there is, it would take two
    shares = [0.4, 0.3, 0.1, 0.1, 0.06, 0.04]
    assert set(draws(shares, 300, warm(top_k=3, top_p=0.45))) == {0}


def test_of_equally_likely_tokens_exactly_k_are_kept_and_always_the_same() -> None:
    assert set(draws([0.1] * 10, 500, warm(top_k=3))) == {0, 1, 2}


def reference_penalties(
    logits: list[float], params: SamplingParams, prompt: list[int], answer: list[int]
) -> list[float]:
    """OpenAI's and the CTRL paper's formulas, one token at a time."""
    adjusted = []
    for token, logit in enumerate(logits):
        if token in prompt or token in answer:
            factor = params.repetition_penalty
            scaled = logit / factor if logit > 0 else logit * factor
        else:
            scaled = logit
        times = answer.count(token)
        taken = params.frequency_penalty * times + params.presence_penalty * (times > 0)
        adjusted.append(scaled - taken)
    return adjusted


@given(
    repetition=st.floats(0.5, 2),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    prompt=st.lists(st.integers(0, 11), max_size=8),
    answer=st.lists(st.integers(0, 11), max_size=12),
    seed=st.integers(0, 100),
)
def test_penalties_are_those_of_their_formulas(
    repetition: float,
    presence: float,
    frequency: float,
    prompt: list[int],
    answer: list[int],
    seed: int,
) -> None:
    params = SamplingParams(
        repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency
    )
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(seed))
    counts = TokenCounts(params, prompt)
    for token in answer:
        counts.add(token)
    expected = reference_penalties(logits[0].tolist(), params, prompt, answer)
    row = Row(params, counts=counts if is_penalised(params) else None)
    (token,) = choose(logits, [row])
    assert expected[token] == pytest.approx(max(expected), abs=1e-5)


def test_repetition_looks_at_the_prompt_and_the_other_penalties_do_not() -> None:
    logits = torch.tensor([[1.0, 0.9]])
    for params, expected in (
        (SamplingParams(repetition_penalty=1.5), 1),
        (SamplingParams(presence_penalty=2.0), 0),
        (SamplingParams(frequency_penalty=2.0), 0),
    ):
        counts = TokenCounts(params, [0, 0])
        assert choose(logits, [Row(params, counts=counts)]) == [expected]
        counts.add(0)
        assert choose(logits, [Row(params, counts=counts)]) == [1]


@pytest.mark.parametrize("params", [GREEDY, warm(), warm(top_k=3), warm(top_p=0.5)])
def test_only_what_is_allowed_and_not_banned_may_come(params: SamplingParams) -> None:
    logits = torch.arange(70.0).expand(200, 70) / 10
    rows = [Row(params, 5, at, allowed=bits({3, 33, 64}, 70)) for at in range(200)]
    assert set(choose(logits, rows)) <= {3, 33, 64}
    banned = [replace(row, banned=(64,)) for row in rows]
    assert set(choose(logits, banned)) <= {3, 33}


def test_logits_wider_than_the_grammars_vocabulary_are_padding() -> None:
    logits = torch.arange(100.0).unsqueeze(0)
    assert choose(logits, [Row(GREEDY, allowed=bits({1, 2}, 32))]) == [2]


def test_logprobs_are_the_models_own_and_the_logits_stay_as_they_were() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(3))
    before = logits.clone()
    params = warm(temperature=1.7, top_k=5, logprobs=4, repetition_penalty=2.0)
    counts = TokenCounts(params, range(40))
    rows = [Row(replace(params, logprobs=wanted), 1, counts=counts) for wanted in (0, 4)]
    first, second, third = sample(logits, [*rows, Row(GREEDY)])
    assert torch.equal(logits, before)
    own = logits.log_softmax(-1)
    assert first.logprob == pytest.approx(own[0, first.token].item(), abs=1e-5)
    assert first.top == ()
    values, ids = own[1].topk(4)
    assert [token for token, _ in second.top] == ids.tolist()
    assert [value for _, value in second.top] == pytest.approx(values.tolist(), abs=1e-5)
    assert (third.logprob, third.top) == (None, ())


VOCABULARY = 300
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.2]),
    top_k=st.sampled_from([0, 1, 5, 250]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    logprobs=st.sampled_from([None, 0, 3]),
)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    chosen = draw(params)
    ids = st.integers(0, VOCABULARY - 1)
    counts = TokenCounts(chosen, draw(st.lists(ids, max_size=20)))
    for token in draw(st.lists(ids, max_size=10)):
        counts.add(token)
    allowed = draw(st.none() | st.sets(ids, min_size=2, max_size=40))
    return Row(
        chosen,
        seed=draw(st.integers(0, 2**63 - 1)),
        position=draw(st.integers(0, 2000)),
        index=draw(st.integers(0, 7)),
        counts=counts if is_penalised(chosen) else None,
        banned=() if allowed else tuple(draw(st.sets(ids, max_size=5))),
        allowed=bits(allowed, VOCABULARY) if allowed else None,
    )


@settings(max_examples=60)
@given(
    batch=st.lists(rows(), min_size=2, max_size=8),
    seed=st.integers(0, 1000),
    step=st.sampled_from([0.0, 0.5]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    few=st.sampled_from([4, 40, 1024]),
    data=st.data(),
)
def test_a_row_gives_the_same_whatever_shares_its_batch(
    batch: list[Row], seed: int, step: float, dtype: torch.dtype, few: int, data: st.DataObject
) -> None:
    logits = torch.randn(len(batch), VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    if step:
        logits = (logits / step).round() * step  # many equal ones
    logits = logits.to(dtype)
    order = data.draw(st.permutations(range(len(batch))))
    with mock.patch.object(sampler, "_FEW", few):
        together = sample(logits, batch)
        again = sample(logits[order], [batch[at] for at in order])
        for place, at in enumerate(order):
            alone = sample(logits[at : at + 1], [batch[at]])[0]
            assert together[at] == again[place] == alone
    # how many values are looked at first changes what it costs and not what comes of it
    assert sample(logits, batch) == together
