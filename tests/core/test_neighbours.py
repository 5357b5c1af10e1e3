"""Counts that several processes keep together."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.neighbours import CONNECTIONS, HELD_BYTES, PLACES, Neighbours, shared_counts

CHILD = (
    "import sys; from forebay.core.neighbours import *;"
    "fd, row = map(int, sys.argv[1:]); own = Neighbours(fd, row, 3); own.add(CONNECTIONS, 7);"
    "own.add(HELD_BYTES, 2**40); own.add(own.place_of('192.0.2.1'), 5);"
    "print(own.others(CONNECTIONS), own.place_of('192.0.2.1'))"
)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, PLACES - 1), st.integers(0, 2**40))))
def test_each_sees_what_the_others_count_and_not_its_own(
    changes: list[tuple[int, int, int]],
) -> None:
    with shared_counts(4) as file:
        every = [Neighbours(file.fileno(), row, 4) for row in range(4)]
        for row, place, amount in changes:
            every[row].add(place, amount)
        for row, one in enumerate(every):
            for place in {CONNECTIONS, HELD_BYTES, *(place for _, place, _ in changes)}:
                counted = sum(a for r, p, a in changes if p == place and r != row)
                assert one.others(place) == counted


def test_what_a_process_counted_another_one_sees_until_its_successor_begins() -> None:
    with shared_counts(3) as file:
        here = Neighbours(file.fileno(), 0, 3)
        here.add(CONNECTIONS, 3)
        arguments = [sys.executable, "-c", CHILD, str(file.fileno()), "2"]
        said = subprocess.run(
            arguments, capture_output=True, text=True, check=True, pass_fds=[file.fileno()]
        ).stdout.split()
        place = here.place_of("192.0.2.1")
        assert said == ["3", str(place)], "all count an address in the same place"
        assert [here.others(one) for one in (CONNECTIONS, HELD_BYTES, place)] == [7, 2**40, 5]
        Neighbours(file.fileno(), 2, 3)
        assert [here.others(one) for one in (CONNECTIONS, HELD_BYTES, place)] == [0, 0, 0]


def test_nobody_can_know_beforehand_which_addresses_are_counted_together() -> None:
    names = [f"192.0.2.{one}" for one in range(64)]
    places = []
    for _ in range(2):
        with shared_counts(2) as file:
            own = Neighbours(file.fileno(), 0, 2)
            places.append([own.place_of(name) for name in names])
    assert places[0] != places[1]
    assert {CONNECTIONS, HELD_BYTES}.isdisjoint(places[0] + places[1])


def test_alone_there_are_no_others() -> None:
    alone = Neighbours()
    alone.add(CONNECTIONS, 5)
    alone.add(CONNECTIONS, -5)
    assert alone.others(CONNECTIONS) == 0
