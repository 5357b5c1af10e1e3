"""The life of a task: every state, and every step from one to the next, in one table."""

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
        """Whether nothing can follow."""
        return not TRANSITIONS[self]


_RUNNING_ENDS = frozenset(
    {State.FINISHED, State.FAILED, State.CANCELLED, State.EXPIRED, State.DEAD, State.QUEUED}
)
"""From a worker's hands a task ends, or goes back to the queue (lease lost, or released)."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.RECEIVED: frozenset({State.QUEUED, State.SHED, State.FAILED}),
    State.QUEUED: frozenset({State.LEASED, State.CANCELLED, State.EXPIRED}),
    State.LEASED: frozenset({State.ENCODING, State.PREFILL}) | _RUNNING_ENDS,
    State.ENCODING: frozenset({State.PREFILL}) | _RUNNING_ENDS,
    State.PREFILL: frozenset({State.DECODE}) | _RUNNING_ENDS,
    State.DECODE: _RUNNING_ENDS,
    State.FINISHED: frozenset(),
    State.SHED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
    State.FAILED: frozenset(),
    State.DEAD: frozenset(),
}


def can_follow(before: State, after: State) -> bool:
    """Return whether a task may go from ``before`` to ``after`` in one step."""
    return after in TRANSITIONS[before]
