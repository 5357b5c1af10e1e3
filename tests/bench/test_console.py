"""What a console costs, from the CPU times with and without, and what is said of it."""

from __future__ import annotations

import math

import pytest

from bench.console import share_per_console, table


def round_of(none_s: float, open_s: float, points: int) -> dict[str, dict[str, float]]:
    return {
        "none": {"cpu_s": none_s, "s": 10.0},
        "open": {"cpu_s": open_s, "s": 20.0, "points": points, "polls": 8},
    }


def test_a_consoles_share_is_what_it_adds_for_each_point_that_it_reads() -> None:
    rounds = [round_of(0.5, 1.4, 40), round_of(0.5, 1.2, 40), round_of(0.5, 9.0, 40)]
    whole = {"consoles": 2, "rounds": rounds}
    # without a console 1 s of 20; 40 points are two consoles for 20 s; the median of the rounds
    assert share_per_console(whole) == pytest.approx(100 * 0.4 / 40)
    assert "1.00%" in table(whole)
    assert "100%" in table(whole)  # every point due was read


def test_readers_that_read_nothing_say_nothing() -> None:
    assert math.isnan(share_per_console({"consoles": 2, "rounds": [round_of(0.5, 1.0, 0)]}))
