"""The course of one delivery: when it came, how far the engine got with it, and when."""

from __future__ import annotations

from dataclasses import dataclass, field

from forebay.core.lifecycle import State
from forebay.queue.ports import Lease


@dataclass(slots=True)
class Course:
    """One delivery. Times are of ``time.monotonic``; None: it has not come to that.

    ``first`` and ``last``: of its tokens.
    """

    lease: Lease
    leased: float
    phases: dict[State, float] = field(default_factory=dict)
    first: float | None = None
    last: float | None = None
    tokens: int = 0

    @property
    def arrived(self) -> float:
        """When the task came into the queue."""
        return self.leased - self.lease.age_s

    @property
    def began(self) -> float | None:
        """When the engine took it up."""
        return min(self.phases.values(), default=None)


def course_phases(course: Course, end: float) -> list[tuple[State, float, float]]:
    """Return each phase that a delivery came to in the engine, with its begin and its end."""
    found = sorted(course.phases.items(), key=lambda one: one[1])
    ends = [at for _, at in found[1:]]
    return [
        (phase, at, until)
        for (phase, at), until in zip(found, [*ends, end], strict=False)  # none: no phase begun
    ]
