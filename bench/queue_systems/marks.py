"""What a worker says of itself to the one who measures: a small file that both map into memory.

Writing costs a worker well under a microsecond a task. Times are of the system's monotonic clock,
which all processes share.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Self

VARIABLE = "QUEUE_MARKS"
_TIMES = struct.Struct("<dd")
_TIME = struct.Struct("<d")


class Marks:
    """When the first and the last of ``count`` tasks ran, how often each did, when it was claimed.

    The file: two times, a byte a task, a time a task.
    """

    def __init__(self, path: Path) -> None:
        self.count = (path.stat().st_size - _TIMES.size) // (1 + _TIME.size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._runs = itertools.count(1)
        self._begun = False

    @classmethod
    def create(cls, path: Path, count: int) -> Self:
        """Return the marks of a new file for the tasks 0 to ``count`` - 1."""
        path.write_bytes(bytes(_TIMES.size + count * (1 + _TIME.size)))
        return cls(path)

    @classmethod
    def of_environment(cls) -> Self:
        """Return the marks of the run that this process works for."""
        return cls(Path(os.environ[VARIABLE]))

    def claim(self, number: int) -> None:
        """Note that a worker has a task in its hands."""
        now = time.monotonic()
        if not self._begun:
            self._begun = True
            _TIME.pack_into(self._map, 0, now)
        _TIME.pack_into(self._map, self._place(number), now)

    def ran(self, number: int) -> None:
        """Note that a task ran. For one process, in any of its threads."""
        if not self._begun:
            self.claim(number)
        run, at = next(self._runs), _TIMES.size + number
        self._map[at] = min(255, self._map[at] + 1)
        if run == self.count:
            _TIME.pack_into(self._map, 8, time.monotonic())

    def times(self) -> tuple[float, float]:
        """Return when the first task ran and when the last one had; 0.0 for what has not been."""
        first, last = _TIMES.unpack_from(self._map, 0)
        return first, last

    def runs(self) -> bytes:
        """Return how often each task ran."""
        return self._map[_TIMES.size : _TIMES.size + self.count]

    def claimed(self, number: int) -> float:
        """Return when a task was claimed; 0.0 when it has not been."""
        (at,) = _TIME.unpack_from(self._map, self._place(number))
        return float(at)

    def _place(self, number: int) -> int:
        return _TIMES.size + self.count + number * _TIME.size
