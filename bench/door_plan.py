"""What a run of the door's bench is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.checkpoints import checkpoint_folder
from bench.plan import Plan


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorPlan(Plan):
    """One run of the door's bench: how much is asked, and of how many processes of ours."""

    sizes: DoorSizes
    api_processes: int = 1

    def checkpoint(self, name: str) -> Path:
        """Return the folder of the checkpoint ``tiny`` or ``small``."""
        return checkpoint_folder(self.home, name)
