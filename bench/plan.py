"""What a run of the bench is to do, and where it writes as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.checkpoints import checkpoint_folder

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked. ``rounds`` are interleaved: every server once, then again."""

    rounds: int = 3
    one_by_one: int = 6
    eight: int = 16
    burst: int = 50
    warm_up: int = 8
    repeats: int = 8
    waiting: int = 1000
    answers_meanwhile: int = 500
    step_requests: int = 50
    decode_steps: int = 40
    kv_tokens: int = 256


QUICK = Sizes(
    rounds=1,
    one_by_one=1,
    eight=2,
    burst=4,
    warm_up=1,
    repeats=1,
    waiting=30,
    answers_meanwhile=2,
    step_requests=3,
    decode_steps=3,
    kv_tokens=8,
)
"""A smoke run: every path once, figures that mean nothing, on the tiny checkpoint throughout."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        peers: who is compared, by name.
        home: the folder of the peers' environments and of the checkpoints.
        work: a folder for servers' data and logs.
        sizes: how much is asked.
        round_limit_s: no further round of a comparison begins when it would end after this.
        save: takes a part's name and its raw figures so far; called after every round.
    """

    peers: tuple[str, ...]
    home: Path
    work: Path
    sizes: Sizes
    round_limit_s: float
    save: Callable[[str, Raw], None]
    began: float = field(default_factory=time.monotonic)

    def checkpoint(self, name: str) -> Path:
        """Return the folder of the checkpoint ``tiny`` or ``small``."""
        return checkpoint_folder(self.home, "tiny" if self.sizes is QUICK else name)

    def folder(self, name: str) -> Path:
        """Return a new folder for a server's state."""
        folder = self.work / f"{name}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        return folder

    def say(self, text: str) -> None:
        """Print a line of progress with the minutes since the start."""
        print(f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}", flush=True)
