"""When canaries count as worse than the stable workers, and when not."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.ops.canary.judgement import CHANCE, Fault, Terms, figures, judge, tail
from forebay.queue.groups import CLASSES_AN_OCTAVE, Group, GroupCounts, Times, Trial

TERMS = Terms()


def times(*seconds: float) -> Times:
    counts: dict[int, int] = {}
    for one in seconds:
        place = math.floor(CLASSES_AN_OCTAVE * math.log2(one * 1000))
        counts[place] = counts.get(place, 0) + 1
    return Times(counts)


def group(answered: int, seconds: float = 1.0, **more: Any) -> GroupCounts:
    took = times(*[seconds] * answered)
    return GroupCounts(answered=answered, **{"first": took, "whole": took, **more})


def trial(canary: GroupCounts, stable: GroupCounts | None = None, starts: int = 1) -> Trial:
    counts = {Group.STABLE: group(200) if stable is None else stable, Group.CANARY: canary}
    return Trial(0.1, 1, 0.0, {}, {}, {Group.STABLE: 1, Group.CANARY: 1}, counts, starts)


def test_a_canary_like_the_others_stays() -> None:
    assert judge(trial(group(50)), TERMS) is None


@pytest.mark.parametrize("what", ["failed", "lost"])
def test_one_that_fails_at_all_is_found_once_there_are_enough(what: str) -> None:
    assert judge(trial(group(0, **{what: 19})), TERMS) is None
    assert judge(trial(group(0, **{what: 20})), TERMS) is Fault.FAILED


def test_empty_answers_are_found() -> None:
    assert judge(trial(group(14, empty=6)), TERMS) is Fault.EMPTY


def test_a_single_failure_among_few_is_chance() -> None:
    assert judge(trial(group(18, failed=2)), TERMS) is None


def test_what_stable_workers_fail_at_as_often_is_no_fault() -> None:
    stable = group(100, failed=100)
    assert judge(trial(group(10, failed=10), stable), TERMS) is None


def test_without_a_stable_worker_failures_are_judged_and_times_are_not() -> None:
    nobody = GroupCounts()
    assert judge(trial(group(10, failed=10), nobody), TERMS) is Fault.FAILED
    assert judge(trial(group(50, 100.0), nobody), TERMS) is None


def test_slowness_beyond_the_bound_is_found_and_below_it_is_not() -> None:
    assert judge(trial(group(40, 1.4)), TERMS) is None
    assert judge(trial(group(40, 2.5)), TERMS) is Fault.SLOW_START
    late = group(40, first=times(*[1.0] * 40), seconds=2.5)
    assert judge(trial(late), TERMS) is Fault.SLOW


def test_one_slow_answer_of_many_is_none() -> None:
    mixed = group(39, whole=times(*[1.0] * 38, 9.0))
    assert judge(trial(mixed), TERMS) is None


def test_starts_are_counted_whatever_was_answered() -> None:
    assert judge(trial(group(0), starts=2), TERMS) is None
    assert judge(trial(group(0), starts=3), TERMS) is Fault.FLAPPING
    several = replace(trial(group(0), starts=4), workers={Group.STABLE: 1, Group.CANARY: 2})
    assert judge(several, TERMS) is None


@given(
    n=st.integers(20, 300),
    failed=st.integers(0, 300),
    stable_failed=st.integers(0, 200),
)
def test_more_failures_never_look_better(n: int, failed: int, stable_failed: int) -> None:
    failed = min(failed, n)
    stable = group(200 - stable_failed, failed=stable_failed)

    def found(bad: int) -> bool:
        return judge(trial(replace(group(n - bad), failed=bad), stable), TERMS) is not None

    if found(failed) and failed < n:
        assert found(failed + 1)


@given(n=st.integers(1, 200), chance=st.floats(0.01, 0.99))
def test_the_tail_is_a_probability_that_falls(n: int, chance: float) -> None:
    tails = [tail(k, n, chance) for k in range(n + 1)]
    assert tails[0] == 1
    assert all(a >= b - 1e-9 for a, b in pairwise(tails))
    assert tails[n] == pytest.approx(chance**n, rel=1e-6)


def test_chance_alone_ends_no_trial() -> None:
    """The bound holds for canaries that are exactly as far off as is borne."""
    borne = next(k for k in range(201) if tail(k, 200, TERMS.failed) < CHANCE)
    assert judge(trial(group(201 - borne, failed=borne - 1)), TERMS) is None


@given(st.lists(st.floats(0.001, 900), min_size=1, max_size=200))
def test_a_quantile_is_within_a_fifth_of_the_true_one(seconds: list[float]) -> None:
    true = sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]
    told = times(*seconds).quantile_s(0.95)
    assert told is not None
    assert true * 0.999 <= told <= true * 1.2


def test_the_figures_say_what_was_counted() -> None:
    told = figures(trial(group(18, failed=1, lost=1)))
    assert told["canary"]["tasks"] == 20
    assert told["canary"]["failed_share"] == 0.1
    assert told["canary_starts"] == 1
