"""What a run of the queue's bench is to do."""

from __future__ import annotations

from dataclasses import dataclass

from bench.plan import Plan


@dataclass(frozen=True, slots=True)
class QueueSizes:
    """How much is asked.

    ``share``: of each contender's number of tasks. ``submits``: tasks sent to an idle worker.
    ``few`` and ``many``: queued while claims are timed, ``claims`` of them at each. ``greedy``
    tasks of one tenant stand beside nine times ``modest`` of others.
    """

    rounds: int = 3
    share: float = 1.0
    submits: int = 1000
    few: int = 1000
    many: int = 1_000_000
    claims: int = 300
    greedy: int = 10_000
    modest: int = 10


QUICK = QueueSizes(
    rounds=1, share=0.02, submits=20, few=100, many=1000, claims=10, greedy=200, modest=3
)
"""A smoke run: every path once, figures that mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan(Plan):
    """One run of the queue's bench: the peers by name, and how much is asked."""

    peers: tuple[str, ...]
    sizes: QueueSizes
