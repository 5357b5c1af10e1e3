"""The life of a task: every state, and every step from one to the next, in one table.

The queue's library is given this table with its text and refuses every step that is not in it; the
diagram in the documentation is drawn from it.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a task is. The last six are final."""

    RECEIVED = "received"
    QUEUED = "queued"
    LEASED = "leased"
    ENCODING = "encoding"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"
    SHED = "shed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether it is an end for the client; only an operator can bring a dead letter back."""
        return TRANSITIONS[self] <= {State.QUEUED}

    @property
    def held(self) -> bool:
        """Whether a worker has the task in its hands."""
        return self in HELD


PHASES = (State.ENCODING, State.PREFILL, State.DECODE)
"""How far the engine is with a task, in order; a task without pictures begins with the second."""

HELD = frozenset({State.LEASED, *PHASES})
"""A worker holds the task."""

_ENDS = frozenset({State.FINISHED, State.FAILED, State.CANCELLED, State.EXPIRED, State.DEAD})
"""Ends of a task that was taken. One that waits may share the end of an equal task."""

_FROM_A_WORKER = _ENDS | {State.QUEUED}
"""From a worker's hands a task ends, or goes back to the queue (lease lost, or released)."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.RECEIVED: frozenset({State.QUEUED, State.SHED, State.FAILED}),
    State.QUEUED: frozenset({State.LEASED}) | _ENDS,
    State.LEASED: frozenset({State.ENCODING, State.PREFILL}) | _FROM_A_WORKER,
    State.ENCODING: frozenset({State.PREFILL}) | _FROM_A_WORKER,
    State.PREFILL: frozenset({State.DECODE}) | _FROM_A_WORKER,
    State.DECODE: _FROM_A_WORKER,
    State.FINISHED: frozenset(),
    State.SHED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
    State.FAILED: frozenset(),
    State.DEAD: frozenset({State.QUEUED}),
}


def can_follow(before: State, after: State) -> bool:
    """Return whether a task may go from ``before`` to ``after`` in one step."""
    return after in TRANSITIONS[before]
