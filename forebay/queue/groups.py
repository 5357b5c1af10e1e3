"""The two groups of workers: the stable ones, and canaries, which run something new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

CLASSES_AN_OCTAVE: Final = 4


class Group(StrEnum):
    """Which group a worker belongs to; canaries are given a share of the tasks, set at run time."""

    STABLE = "stable"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, many times: counts by class, four classes to an octave of ms."""

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def quantile_s(self, part: float) -> float | None:
        """Return the time that ``part`` of them do not exceed, within a fifth; None of none."""
        left = part * self.total
        for place in sorted(self.counts):
            left -= self.counts[place]
            if left <= 1e-9:
                return 2 ** ((place + 1) / CLASSES_AN_OCTAVE) / 1000
        return None

    def above(self, seconds: float) -> int:
        """Return how many took longer, those of the class that holds the bound not counted."""
        return sum(
            n for at, n in self.counts.items() if 2 ** (at / CLASSES_AN_OCTAVE) > seconds * 1000
        )


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """What came of the tasks of one group. A task that came back from a canary is in neither's.

    ``answered`` leaves out ``empty`` answers. ``lost``: their worker died, hung, or lost them.
    ``first``, ``whole``: of the answered ones, from the lease to the first token, and to the end.
    """

    answered: int = 0
    empty: int = 0
    failed: int = 0
    lost: int = 0
    first: Times = field(default_factory=Times)
    whole: Times = field(default_factory=Times)

    @property
    def total(self) -> int:
        """Every one."""
        return self.answered + self.empty + self.failed + self.lost


@dataclass(frozen=True, slots=True)
class Trial:
    """How canaries stand. ``number`` rises with every change of the share, and of what they run.

    ``share``: of the tasks, from 0 to 1. ``since_s``: when the trial began, s since the epoch, or
    None where there was none. ``entry``: what the log says last. ``about``: what canaries run, as
    the last one to start said. ``workers``: those heard of lately. ``starts``: canaries that
    started.
    """

    share: float
    number: int
    since_s: float | None
    entry: Mapping[str, Any]
    about: Mapping[str, Any]
    workers: Mapping[Group, int]
    counts: Mapping[Group, GroupCounts]
    starts: int


def read_counts(flat: Mapping[str, str], side: str) -> GroupCounts:
    """Read what the library counted of one side, ``s`` or ``c``."""
    own = {
        name.removeprefix(f"{side}:"): int(value)
        for name, value in flat.items()
        if name.startswith(f"{side}:")
    }
    numbers = {name: own.get(name, 0) for name in ("answered", "empty", "failed", "lost")}
    return GroupCounts(**numbers, first=_times(own, "first:"), whole=_times(own, "whole:"))


def read_entry(text: str) -> dict[str, Any]:
    """Read an entry of the log, or what canaries run; empty where there is none."""
    return dict(json.loads(text)) if text else {}


def _times(own: Mapping[str, int], prefix: str) -> Times:
    return Times(
        {int(name.removeprefix(prefix)): n for name, n in own.items() if name.startswith(prefix)}
    )
