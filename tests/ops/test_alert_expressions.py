"""The part of PromQL that rules are written in: read as Prometheus reads it, or refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.ops.alerts.evaluation import evaluate
from forebay.ops.alerts.expression import (
    Binary,
    ExpressionError,
    Number,
    Selector,
    parse,
    selectors,
)
from forebay.ops.alerts.series import STALE_S, History, Sample


@pytest.mark.parametrize(
    "text",
    [
        "up >", "avg(up)", "rate(up)", "rate(up[5x])", "up[5m", "sum by host (up)", "up{a=b}",
        "histogram_quantile(0.9)", "time(up)", "up up", "", "delta(up[5m])", "up{a>\"b\"}", "(up",
        "histogram_quantile(0.9, up[5m])",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_signs_bind_as_in_promql() -> None:
    assert parse("a - 1 * 2 > 3 and b or c") == parse("(((a - (1 * 2)) > 3) and b) or c")
    assert parse("10 - 4 - 3") == Binary("-", Binary("-", Number(10), Number(4)), Number(3))


def test_selectors_look_over_ranges_and_back() -> None:
    found = selectors(parse('sum(rate(a{x="1",y!~"2|3"}[5m] offset 1h)) > b'))
    assert [(one.metric, one.range_s, one.offset_s) for one in found] == [
        ("a", 300.0, 3600.0),
        ("b", 0.0, 0.0),
    ]
    assert found[0].fits("a", {"x": "1", "y": "23"})
    assert not found[0].fits("a", {"x": "1", "y": "3"})
    assert not found[0].fits("a", {})


def test_a_value_that_is_not_told_any_more_is_none_of_now() -> None:
    history = History([Selector("a")], 15.0)
    history.add(0.0, [Sample("a", (), 1.0)])
    assert evaluate(parse("a"), history, STALE_S - 1) == {(): 1.0}
    assert evaluate(parse("a"), history, STALE_S) == {}


def test_a_clock_that_is_put_back_begins_a_series_anew() -> None:
    history = History([Selector("a")], 15.0)
    history.add(10_000.0, [Sample("a", (), 1.0)])
    history.add(5_000.0, [Sample("a", (), 2.0)])
    assert evaluate(parse("a"), history, 5_000.0) == {(): 2.0}


def test_a_ratio_over_nothing_is_no_alert() -> None:
    history = History([Selector("a"), Selector("b")], 15.0)
    history.add(0.0, [Sample("a", (), 0.0), Sample("b", (), 0.0)])
    assert evaluate(parse("a / b > 0"), history, 0.0) == {}
    assert math.isnan(evaluate(parse("a / b"), history, 0.0)[()])


@given(
    counts=st.lists(st.integers(0, 50), min_size=2, max_size=30),
    resets=st.sets(st.integers(1, 29), max_size=3),
)
def test_an_increase_is_near_what_was_counted_whatever_resets(
    counts: list[int], resets: set[int]
) -> None:
    history = History([Selector("a", (), 600.0)], 15.0)
    value = 0.0
    for step, count in enumerate(counts):
        value = count if step in resets else value + count
        history.add(step * 15.0, [Sample("a", (), value)])
    now_s = (len(counts) - 1) * 15.0
    grown = evaluate(parse("increase(a[10m])"), history, now_s).get((), 0.0)
    counted = sum(counts[1:])
    # a reset that is at once counted past is not seen, as in Prometheus: then it is less
    assert 0 <= grown <= (counted + max(counts, default=0)) * 2
    if not resets:
        assert grown >= counted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_memory_is_bounded_by_the_longest_look_back(values: list[float]) -> None:
    history = History([Selector("a", (), 120.0)], 15.0)
    for step, value in enumerate(values * 3):
        history.add(step * 15.0, [Sample("a", (), value), Sample("unwanted", (), value)])
        history.forget(step * 15.0)
    (points,) = history.within(Selector("a", (), 1e9), len(values) * 45.0).values()
    assert len(points) <= (120 + STALE_S + 30) / 15 + 1
    assert history.within(Selector("unwanted", (), 1e9), 1e9) == {}
