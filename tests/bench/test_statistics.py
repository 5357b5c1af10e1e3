from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import (
    Answer,
    best_of,
    figures,
    growth_share,
    paired_ratio,
    percentile,
    relative_difference,
)

seconds = st.floats(min_value=0.001, max_value=1000)


def answer(began: float, latency: float, ttft: float | None = None, tokens: int = 32) -> Answer:
    return Answer(began, latency, ttft, tokens, "text")


@given(st.lists(seconds, min_size=1), st.floats(min_value=0.01, max_value=1))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(one <= found for one in values) >= share * len(values) - 1e-9
    assert sum(one < found for one in values) < share * len(values)


def test_rates_count_from_the_first_request_to_the_last_answer() -> None:
    made = figures([answer(100.0, 2.0), answer(101.0, 3.0)])
    assert made["total_s"] == 4.0
    assert made["requests_per_s"] == 0.5
    assert made["tokens_per_s"] == 16.0


def test_time_per_token_leaves_the_first_token_out() -> None:
    assert answer(0.0, 4.1, ttft=1.0, tokens=32).tpot == pytest.approx(0.1)
    assert answer(0.0, 4.1, ttft=None).tpot is None
    assert answer(0.0, 4.1, ttft=1.0, tokens=1).tpot is None


def test_without_a_stream_the_first_word_is_the_whole_answer() -> None:
    made = figures([answer(0.0, 4.0), answer(0.0, 6.0)])
    assert made["ttft_p50_s"] == made["latency_p50_s"] == 4.0
    assert made["tpot_p50_ms"] is None


def test_median_over_last_tells_whether_all_end_together() -> None:
    steady = figures([answer(0.0, float(at)) for at in range(1, 11)])
    together = figures([answer(0.0, 10.0) for _ in range(10)])
    assert steady["median_over_last"] == 0.5
    assert together["median_over_last"] == 1.0


def test_failed_requests_give_no_figures_but_are_counted() -> None:
    failed = Answer(0.0, 0.1, None, 0, "", "503: full")
    made = figures([failed, answer(0.0, 2.0), failed])
    assert (made["requests"], made["failed"], made["errors"]) == (3, 2, ["503: full"])
    assert made["requests_per_s"] == 0.5
    assert "requests_per_s" not in figures([failed])


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=9))
def test_a_paired_ratio_does_not_see_the_drift_of_the_machine(
    rounds: list[tuple[float, float]],
) -> None:
    drifted = [(ours * 2**at, theirs * 2**at) for at, (ours, theirs) in enumerate(rounds)]
    ratio = paired_ratio([one for one, _ in rounds], [other for _, other in rounds])
    again = paired_ratio([one for one, _ in drifted], [other for _, other in drifted])
    assert ratio == pytest.approx(again)
    assert ratio == pytest.approx(statistics.median(one / other for one, other in rounds))


def test_a_round_that_one_of_the_pair_failed_does_not_count() -> None:
    assert paired_ratio([4.0, None, 9.0], [2.0, 1.0, None]) == 2.0
    assert paired_ratio([None], [1.0]) is None
    assert paired_ratio([], []) is None


def test_the_best_is_chosen_round_by_round() -> None:
    values = {"a": [1.0, 5.0, None], "b": [2.0, 4.0, None], "c": [3.0]}
    assert best_of(values) == [1.0, 4.0, None]


def test_growth_is_measured_against_proportional_growth() -> None:
    assert growth_share(10.0, 160.0, 16) == 1.0
    assert growth_share(10.0, 40.0, 16) == 0.25


def test_a_difference_is_relative_to_what_was_before() -> None:
    assert relative_difference(200.0, 202.0) == pytest.approx(0.01)
    assert relative_difference(200.0, 198.0) == pytest.approx(-0.01)
