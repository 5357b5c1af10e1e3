"""What a run of the queue's bench is to do, and where it writes as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Raw = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """One run: the peers by name, the folder of their environments, a folder for data and logs.

    ``save`` takes a part's name and its raw figures so far; it is called after every round.
    """

    peers: tuple[str, ...]
    home: Path
    work: Path
    sizes: QueueSizes
    save: Callable[[str, Raw], None]
    began: float = field(default_factory=time.monotonic)

    def folder(self, name: str) -> Path:
        """Return a new folder."""
        folder = self.work / f"{name}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        return folder

    def say(self, text: str) -> None:
        """Print a line of progress with the minutes since the start."""
        print(f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}", flush=True)
