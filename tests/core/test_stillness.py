from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.stillness import MOST_TICKS, Stillness

TICK = 0.5
GAPS = st.floats(0.01, 1000, allow_nan=False)


@given(st.lists(st.tuples(GAPS, st.sampled_from(["a", "b", None])), max_size=40))
def test_it_counts_from_the_last_movement_and_never_more_than_was_watched(
    looks: list[tuple[float, str | None]],
) -> None:
    stillness, now, since = Stillness(TICK), 0.0, 0.0
    last: str | None = None
    unmoved = 0
    for gap, mark in looks:
        now += gap
        still_s = stillness.see(mark, now)
        if mark is None or mark != last:
            since, unmoved, last = now, 0, mark
            assert still_s == 0
        else:
            unmoved += 1
        assert still_s <= now - since + 1e-6
        assert still_s <= unmoved * TICK * MOST_TICKS + 1e-6


def test_with_punctual_looks_it_is_the_time_itself() -> None:
    stillness = Stillness(TICK)
    assert [stillness.see("a", at * TICK) for at in range(4)] == [0, 0.5, 1.0, 1.5]
    assert stillness.see("b", 2.0) == 0
    assert stillness.see(None, 2.5) == stillness.see(None, 3.0) == 0


def test_an_hour_in_which_the_watcher_slept_is_not_an_hour_of_stillness() -> None:
    stillness = Stillness(TICK)
    stillness.see("a", 0)
    assert stillness.see("a", 3600) == TICK * MOST_TICKS
