"""A checker is worth what it catches: honest histories pass, and each broken promise is named."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.checker import check
from tests.chaos.history import (
    Accepted,
    Asked,
    Broke,
    End,
    Ended,
    Event,
    Followed,
    Grew,
    HungUp,
    Read,
    Refused,
    Restarted,
    Unknown,
    Unsure,
)

Events = list[Event]


def answer_to(number: int) -> str:
    return " ".join(f"{number}.{at}" for at in range(4))


def pieces(text: str) -> list[str]:
    """Cut a text so that no two pieces are alike."""
    return [one for one in re.split(r"(?<= )", text) if one]


def life(number: int, chance: random.Random) -> Events:
    """Return what one client sees of one task in an honest world."""
    task, text = f"t{number}", answer_to(number)
    events: Events = []
    for attempt in range(chance.randrange(3)):
        ask = f"a{number}.{attempt}"
        events.append(Asked(ask, f"prompt {ask}", text))
        events.append(chance.choice([Refused(ask, "queue_full"), Unsure(ask, "no reply")]))
    ask = f"a{number}.last"
    events.append(Asked(ask, f"prompt {ask}", text))
    events += [Accepted(ask, task)] * chance.randrange(1, 3)
    if chance.random() < 0.7:
        events += stream(task, text, chance)
    events += [Read(task, None)] * chance.randrange(2) if not ended(events) else []
    events += [Read(task, End(True, text))] * chance.randrange(0 if ended(events) else 1, 3)
    return events


def ended(events: Events) -> bool:
    return any(isinstance(one, Ended) for one in events)


def stream(task: str, text: str, chance: random.Random) -> Events:
    """Return an answer that restarts and breaks off as chance has it, resumed by its last place."""
    events: Events = [Followed(task, "r")]
    place, left, lives = 0, pieces(text), 0
    while left:
        place += 1
        fate = chance.random()
        if fate < 0.15 and lives < 3:
            lives += 1
            events.append(Restarted(task, "r", f"{place}-0"))
            left = pieces(text)
        elif fate < 0.3 and place > 1:
            events += [Broke(task, "r", "cut"), Followed(task, "r", f"{place - 1}-0")]
        else:
            events.append(Grew(task, "r", left.pop(0), f"{place}-0"))
    return [*events, Ended(task, "r", End(True, chance.choice([None, text])))]


def world(seed: int, tasks: int) -> Events:
    """Return some clients' histories, woven into one."""
    chance = random.Random(seed)
    lives = [life(number, chance) for number in range(tasks)]
    woven: Events = []
    while any(lives):
        woven.append(chance.choice([one for one in lives if one]).pop(0))
    return woven


worlds = st.builds(world, st.integers(0, 10**9), st.integers(1, 6))


@given(worlds)
def test_an_honest_history_is_acquitted(events: Events) -> None:
    verdict = check(events)
    assert verdict.violations == ()
    assert verdict.answered == verdict.accepted
    assert verdict.accepted == len({one.task for one in events if isinstance(one, Accepted)})


def kinds(events: Sequence[Event], runs: dict[str, int] | None = None) -> set[str]:
    return {one.kind for one in check(events, runs).violations}


def tasks_of(events: Events) -> list[str]:
    return sorted({one.task for one in events if isinstance(one, Accepted)})


def places(events: Events, wanted: Callable[[Event], bool]) -> list[int]:
    return [at for at, one in enumerate(events) if wanted(one)]


def said_in_last_life(events: Events) -> list[int]:
    """Return where text grew that no restart took back."""
    found = []
    for at, one in enumerate(events):
        if isinstance(one, Grew):
            later = events[at + 1 :]
            if not any(isinstance(it, Restarted) and it.task == one.task for it in later):
                found.append(at)
    return found


def is_end(event: Event, task: str) -> bool:
    return (isinstance(event, Ended) and event.task == task) or (
        isinstance(event, Read) and event.task == task and event.end is not None
    )


@given(worlds, st.data())
def test_a_task_without_an_end_is_lost(events: Events, data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(tasks_of(events)))
    left = [one for one in events if not is_end(one, task)]
    assert "lost" in kinds(left)
    assert check(left).count("lost") == 1


@given(worlds, st.data())
def test_an_accepted_task_that_is_unknown_is_lost(events: Events, data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(tasks_of(events)))
    assert "lost" in kinds([*events, Unknown(task)])


@given(
    worlds,
    st.data(),
    st.sampled_from([End(True, "another"), End(False, "expired"), End(False, "dead_letter"), None]),
)
def test_a_result_that_changes_is_doubled(
    events: Events, data: st.DataObject, later: End | None
) -> None:
    """``None``: the task is pending again."""
    task = data.draw(st.sampled_from(tasks_of(events)))
    assert "doubled" in kinds(
        [*events, Read(task, End(True, answer_to(int(task[1:])))), Read(task, later)]
    )


@given(worlds, st.data())
def test_a_stream_that_goes_on_after_its_end_is_doubled(
    events: Events, data: st.DataObject
) -> None:
    ends = places(events, lambda one: isinstance(one, Ended))
    if ends:
        twice = events[data.draw(st.sampled_from(ends))]
        assert "doubled" in kinds([*events, twice])


@given(worlds, st.data())
def test_one_ask_that_becomes_two_tasks_is_doubled(events: Events, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(places(events, lambda one: isinstance(one, Accepted))))
    taken = events[at]
    assert isinstance(taken, Accepted)
    twin = [Accepted(taken.ask, "twin"), Read("twin", End(True, answer_to(int(taken.task[1:]))))]
    assert "doubled" in kinds([*events, *twin])


@given(worlds, st.data())
def test_text_that_is_missing_is_a_gap(events: Events, data: st.DataObject) -> None:
    grown = said_in_last_life(events)
    if grown:
        at = data.draw(st.sampled_from(grown))
        assert "gap" in kinds(events[:at] + events[at + 1 :])


@given(worlds, st.data())
def test_text_that_comes_twice_is_a_gap(events: Events, data: st.DataObject) -> None:
    grown = said_in_last_life(events)
    if grown:
        at = data.draw(st.sampled_from(grown))
        assert "gap" in kinds(events[: at + 1] + events[at:])


@given(worlds, st.data())
def test_text_in_another_order_is_a_gap(events: Events, data: st.DataObject) -> None:
    grown = said_in_last_life(events)
    pairs = [(a, b) for a in grown for b in grown if a < b and events[a].task == events[b].task]  # type: ignore[union-attr]
    if pairs:
        first, second = data.draw(st.sampled_from(pairs))
        swapped = list(events)
        swapped[first], swapped[second] = events[second], events[first]
        assert "gap" in kinds(swapped)
        without_places = [
            replace(one, place=None) if isinstance(one, Grew) else one for one in swapped
        ]
        assert "gap" in kinds(without_places)


@given(worlds, st.data())
def test_a_restart_that_is_not_told_is_a_gap(events: Events, data: st.DataObject) -> None:
    def takes_back(at: int) -> bool:
        one = events[at]
        if not isinstance(one, Restarted):
            return False
        alike = [it for it in events if isinstance(it, Grew | Restarted) and it.task == one.task]
        number = next(n for n, it in enumerate(alike) if it is one)
        return number > 0 and all(isinstance(it, Grew) for it in alike[number - 1 : number + 2 : 2])

    told = [at for at in range(len(events)) if takes_back(at)]
    if told:
        at = data.draw(st.sampled_from(told))
        assert "gap" in kinds(events[:at] + events[at + 1 :])


@given(st.integers(0, 10**9))
def test_anothers_answer_is_wrong(seed: int) -> None:
    events = [
        one
        for one in world(seed, 3)
        if not isinstance(one, Followed | Grew | Restarted | Broke | Ended)
    ]
    other = End(True, answer_to(1))
    swapped = [
        replace(one, end=other) if isinstance(one, Read) and one.task == "t0" and one.end else one
        for one in events
    ] + [Read("t0", other)]
    assert "wrong" in kinds(swapped)


def test_a_task_given_to_two_asks_is_wrong() -> None:
    events = [Asked("a", "p", "x"), Asked("b", "p", "x"), Accepted("a", "t"), Accepted("b", "t")]
    assert "wrong" in kinds([*events, Read("t", End(True, "x"))])


@pytest.mark.parametrize("code", ["inference_failed", "expired", "cancelled", "internal_error"])
def test_a_failure_that_nothing_explains_is_charged(code: str) -> None:
    events = [Asked("a", "p", "x"), Accepted("a", "t"), Read("t", End(False, code))]
    assert kinds(events) == {"failed"}
    assert check(events).failed == {code: 1}


def test_a_cancel_is_borne_after_the_client_went_and_a_dead_letter_always() -> None:
    taken: Events = [Asked("a", "p", "x"), Accepted("a", "t")]
    assert kinds([*taken, HungUp("t"), Read("t", End(False, "cancelled"))]) == set()
    assert kinds([*taken, Read("t", End(False, "dead_letter"))]) == set()


def test_what_was_refused_must_not_have_run_and_what_was_answered_must() -> None:
    events: Events = [
        Asked("a", "refused", "x"),
        Refused("a", "queue_full"),
        Asked("b", "unsure", "x"),
        Unsure("b", "no reply"),
        Asked("c", "taken", "x"),
        Accepted("c", "t"),
        Read("t", End(True, "x")),
    ]
    assert kinds(events, {"unsure": 1, "taken": 2}) == set()
    assert kinds(events, {"refused": 1, "taken": 1}) == {"ghost"}
    assert kinds(events, {}) == {"wrong"}


def test_what_was_refused_may_have_run_for_another_one_who_asked_the_same() -> None:
    events: Events = [
        Asked("a", "p", "x"),
        Refused("a", "queue_full"),
        Asked("b", "p", "x"),
        Accepted("b", "t"),
        Read("t", End(True, "x")),
        Asked("c", "p", "x"),
        Accepted("c", "u", "hit"),
        Read("u", End(True, "x")),
    ]
    assert kinds(events, {"p": 1}) == set()
    assert (check(events).cached, check(events).joined) == (1, 0)


def test_an_ask_that_was_refused_and_taken_at_its_second_try_may_run() -> None:
    events: Events = [
        Asked("a", "p", "x"),
        Refused("a", "queue_full"),
        Accepted("a", "t"),
        Read("t", End(True, "x")),
    ]
    assert kinds(events, {"p": 1}) == set()


def test_a_place_that_goes_back_is_a_gap_even_when_the_text_fits() -> None:
    events: Events = [
        Asked("a", "p", "xy"),
        Accepted("a", "t"),
        Followed("t", "r"),
        Grew("t", "r", "x", "10-0"),
        Grew("t", "r", "y", "9-7"),
        Ended("t", "r", End(True, "xy")),
        Read("t", End(True, "xy")),
    ]
    assert kinds(events) == {"gap"}
