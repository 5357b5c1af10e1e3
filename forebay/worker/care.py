"""When a worker that is well is replaced all the same: pure rules over what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.core.daily_window import DailyWindow


class Cause(StrEnum):
    """Why a worker is recycled."""

    SCHEDULE = "schedule"
    MEMORY = "memory"
    GPU_MEMORY = "gpu_memory"
    AGE = "age"
    TASKS = "tasks"


@dataclass(frozen=True, slots=True)
class Bound:
    """What of one kind of memory a worker may take. None: no bound.

    ``growth``: share over its level, which is what it takes at the age of ``settle_s``.
    """

    most_bytes: int | None = None
    growth: float | None = None

    def is_past(self, taken: int, level: int) -> bool:
        """Whether so many bytes are too many."""
        if self.most_bytes is not None and taken > self.most_bytes:
            return True
        return self.growth is not None and level > 0 and taken > level * (1 + self.growth)


@dataclass(frozen=True, slots=True)
class CareRules:
    """When workers are recycled. Times in seconds."""

    settle_s: float
    window: DailyWindow | None = None
    memory: Bound = Bound()
    gpu_memory: Bound = Bound()
    age_s: float | None = None
    tasks: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is any reason for which a worker would be recycled."""
        unset = CareRules(self.settle_s)
        return self != unset


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a worker's process, as it is now; ``level`` and ``gpu_level`` once settled."""

    age_s: float
    ended: int
    memory: int
    gpu_memory: int
    level: int
    gpu_level: int


def cause_to_recycle(rules: CareRules, life: Life, now: datetime, whose: str) -> Cause | None:
    """Return why a worker is due at ``now``; None: it is not. ``whose``: spreads the turns."""
    if life.age_s < rules.settle_s:
        return None
    if rules.memory.is_past(life.memory, life.level):
        return Cause.MEMORY
    if rules.gpu_memory.is_past(life.gpu_memory, life.gpu_level):
        return Cause.GPU_MEMORY
    if rules.age_s is not None and life.age_s >= rules.age_s:
        return Cause.AGE
    if rules.tasks is not None and life.ended >= rules.tasks:
        return Cause.TASKS
    return Cause.SCHEDULE if _is_its_turn(rules.window, life, now, whose) else None


def _is_its_turn(window: DailyWindow | None, life: Life, now: datetime, whose: str) -> bool:
    """Whether its turn in the present window has come, and it is older than that window."""
    if window is None or (around := window.around(now)) is None:
        return False
    turn = window.turn(around, whose)
    return now >= turn and now - timedelta(seconds=life.age_s) < around[0]
