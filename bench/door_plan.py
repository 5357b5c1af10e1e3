"""What a run of the door's bench is to do, and where it writes as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.checkpoints import checkpoint_folder

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DoorSizes:
    """How much is asked.

    ``requests`` of ``photos`` pictures are sent to each door in a round, ``burst`` at once; under
    overload for ``overload_s``; ``singles`` one by one through the whole road; ``answers`` at once
    through the road and through the engine alone.
    """

    rounds: int = 3
    requests: int = 1000
    photos: int = 200
    burst: int = 1000
    overload_s: float = 20.0
    singles: int = 200
    answers: int = 50


QUICK = DoorSizes(rounds=1, requests=20, photos=5, burst=20, overload_s=2.0, singles=5, answers=4)
"""A smoke run: every path once, figures that mean nothing."""


@dataclass(frozen=True, slots=True)
class DoorPlan:
    """One run: the folder of the peers' environments and checkpoints, one for data and logs.

    ``save`` takes a part's name and its raw figures so far; it is called after every round.
    """

    home: Path
    work: Path
    sizes: DoorSizes
    save: Callable[[str, Raw], None]
    began: float = field(default_factory=time.monotonic)

    def checkpoint(self, name: str) -> Path:
        """Return the folder of the checkpoint ``tiny`` or ``small``."""
        return checkpoint_folder(self.home, name)

    def folder(self, name: str) -> Path:
        """Return a new folder."""
        folder = self.work / f"{name}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        return folder

    def say(self, text: str) -> None:
        """Print a line of progress with the minutes since the start."""
        print(f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}", flush=True)
