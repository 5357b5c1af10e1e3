"""A time of each day: found from any instant, whatever the clocks of its zone do."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.daily_window import DailyWindow

ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe")
INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)).map(  # noqa: DTZ001
    lambda one: one.replace(tzinfo=UTC)
)
MINUTES = st.times().map(lambda one: one.replace(second=0, microsecond=0))


@given(INSTANTS, MINUTES, MINUTES, st.sampled_from(ZONES))
def test_an_instant_is_in_the_window_exactly_where_the_local_clock_says_so(
    now: datetime, begin: time, end: time, zone: str
) -> None:
    if begin == end:
        return
    window = DailyWindow.parse(f"{begin:%H:%M}-{end:%H:%M}", zone)
    around = window.around(now)
    if around is not None:
        assert around[0] <= now < around[1]
        assert around[0] <= window.turn(around, "a stack") < around[1]
    local = now.astimezone(window.zone)
    offsets = {
        (local + timedelta(hours=hours)).astimezone(UTC).astimezone(window.zone).utcoffset()
        for hours in range(-26, 27)
    }
    if len(offsets) == 1:  # no clock is changed nearby
        said = local.time()
        inside = begin <= said < end if begin < end else (said >= begin or said < end)
        assert (around is not None) == inside


def test_the_turns_of_several_are_spread_over_the_first_half_and_stay() -> None:
    window = DailyWindow.parse("03:00-05:00", "Asia/Shanghai")
    around = window.around(datetime(2026, 11, 20, 19, 30, tzinfo=UTC))
    assert around == (
        datetime(2026, 11, 20, 19, tzinfo=UTC),
        datetime(2026, 11, 20, 21, tzinfo=UTC),
    )
    turns = {window.turn(around, f"stack {one}") for one in range(100)}
    assert len(turns) == 100
    assert max(turns) < around[0] + timedelta(hours=1)
    assert max(turns) - min(turns) > timedelta(minutes=50)
    assert window.turn(around, "stack 1") in turns


def test_a_window_that_the_change_of_clocks_swallows_is_left_out() -> None:
    window = DailyWindow.parse("02:30-03:10", "Europe/Berlin")
    assert not any(
        window.around(datetime(2026, 3, 29, tzinfo=UTC) + timedelta(minutes=minute))
        for minute in range(180)
    )
    assert window.around(datetime(2026, 3, 30, 0, 45, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "zone", "word"),
    [
        ("3-5", "UTC", "HH:MM"),
        ("25:00-26:00", "UTC", "HH:MM"),
        ("03:00-03:00", "UTC", "begins when it ends"),
        ("03:00-05:00", "Mars/Olympus", "Mars/Olympus"),
        ("03:00-05:00", "../../etc/passwd", "time zone"),
    ],
)
def test_what_is_no_window_is_refused_with_the_reason(text: str, zone: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DailyWindow.parse(text, zone)
