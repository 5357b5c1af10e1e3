"""One run of a benchmark: where it writes as it goes, and how it tells its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run.

    Attributes:
        home: the folder of the peers' environments and of the checkpoints.
        work: a folder for servers' data and logs.
        save: takes a part's name and its raw figures so far; called after every round.
    """

    home: Path
    work: Path
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
