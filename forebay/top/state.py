"""What ``forebay top`` knows, and what it does with a key: no terminal, no network."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

HISTORY: Final = 240
"""Points kept for the lines, one a second."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What the user wants done to a worker: ``drain`` or ``undrain``."""

    action: str
    worker_id: str


@dataclass(slots=True)
class TopState:
    """One screen's knowledge. ``notice``: the last line; ``asked``: waits for a yes."""

    now: Mapping[str, Any] | None = None
    points: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    workers: Sequence[Mapping[str, Any]] = ()
    alerts: Sequence[Mapping[str, Any]] = ()
    away: str | None = None
    chosen: str | None = None
    asked: Deed | None = None
    notice: str = ""
    over: bool = False

    def see_point(self, point: Mapping[str, Any]) -> None:
        """Take the newest point."""
        self.now, self.away = point, None
        self.points.append(point.get("values") or {})

    def see_series(self, series: Mapping[str, Any]) -> None:
        """Take the points before the first one that is seen live."""
        columns = series["columns"]
        self.points.extend(dict(zip(columns, row, strict=False)) for row in series["rows"])

    def see_workers(self, workers: Sequence[Mapping[str, Any]]) -> None:
        """Take the list; who was chosen stays so while it is there."""
        self.workers = workers
        known = [str(one["id"]) for one in workers]
        if self.chosen not in known:
            self.chosen = known[0] if known else None

    def line_of(self, key: str) -> list[float | None]:
        """Return the history of one value."""
        return [point.get(key) for point in self.points]

    def press(self, key: str) -> Deed | None:
        """Act on a key; return what is to be done, once the user is sure."""
        if self.asked is not None:
            deed, self.asked = self.asked, None
            return deed if key in ("y", "Y") else None
        self.notice = ""
        if key in ("q", "Q", "\x03"):
            self.over = True
        elif key in ("up", "k"):
            self._choose(-1)
        elif key in ("down", "j"):
            self._choose(1)
        elif key == "d" and self.chosen is not None:
            self.asked = Deed("drain", self.chosen)
        elif key == "u" and self.chosen is not None:
            return Deed("undrain", self.chosen)
        return None

    def _choose(self, step: int) -> None:
        known = [str(one["id"]) for one in self.workers]
        if self.chosen in known:
            at = min(max(known.index(self.chosen) + step, 0), len(known) - 1)
            self.chosen = known[at]
