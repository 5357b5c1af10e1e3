"""The transition table is whole and has no dead ends but the final states."""

from __future__ import annotations

from forebay.core.lifecycle import TRANSITIONS, State, can_follow


def reachable(start: State) -> set[State]:
    found, waiting = {start}, [start]
    while waiting:
        for after in TRANSITIONS[waiting.pop()] - found:
            found.add(after)
            waiting.append(after)
    return found


def test_every_state_has_a_row():
    assert set(TRANSITIONS) == set(State)


def test_every_state_is_reached_from_received():
    assert reachable(State.RECEIVED) == set(State)


def test_every_state_can_come_to_an_end():
    assert all(any(state.final for state in reachable(start)) for start in State)


def test_the_final_states_are_the_six_ends():
    assert {state for state in State if state.final} == {
        State.FINISHED,
        State.SHED,
        State.CANCELLED,
        State.EXPIRED,
        State.FAILED,
        State.DEAD,
    }


def test_nothing_but_an_operators_retry_follows_an_end():
    after_ends = {state: TRANSITIONS[state] for state in State if state.final}
    assert after_ends.pop(State.DEAD) == {State.QUEUED}
    assert not any(after_ends.values())


def test_nothing_follows_a_result():
    assert not any(can_follow(State.FINISHED, after) for after in State)
