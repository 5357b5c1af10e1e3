"""Counts that processes of one machine keep together, so that a bound holds for all of them.

Each process writes a row of its own in memory that all of them have, and reads the others'. No
lock: a count is a word that one process writes. Two that look at the same moment may both let
somebody in at a bound, which is then passed by one.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from functools import lru_cache
from hashlib import blake2b
from typing import IO, Final

CONNECTIONS: Final = 0
HELD_BYTES: Final = 1
_NAMED: Final = 2
"""Counts that have a place of their own; those by address share the places after them."""

PLACES: Final = 2**13
_WORD: Final = 8
_SEED_BYTES: Final = 16
_MOST_NAMES: Final = 2**12


class Neighbours:
    """The counts of this process, in ``row`` of ``rows``, beside those of the others.

    ``fd``: what ``shared_counts`` made, which its parent keeps. What a process before this one left
    in its row is forgotten. Without an ``fd`` there are no others.
    """

    def __init__(self, fd: int | None = None, row: int = 0, rows: int = 1) -> None:
        size = _size(rows)
        memory: bytearray | mmap.mmap = bytearray(size)
        if fd is not None:
            memory = mmap.mmap(fd, size)
            os.set_inheritable(fd, False)  # for this process, and for no child of it
        self._seed = bytes(memory[:_SEED_BYTES])
        words = memoryview(memory)[_SEED_BYTES:].cast("Q")
        every = [words[one * PLACES : (one + 1) * PLACES] for one in range(rows)]
        self._own = every.pop(row)
        self._others = every
        self._place_of = lru_cache(_MOST_NAMES)(self._find_place)
        self._own[:] = memoryview(bytes(PLACES * _WORD)).cast("Q")

    def add(self, place: int, amount: int) -> None:
        """Change a count of this process."""
        self._own[place] += amount

    def others(self, place: int) -> int:
        """Return the others' counts together."""
        return sum(one[place] for one in self._others)

    def place_of(self, name: str) -> int:
        """Return where things of that name are counted, maybe with those of another name.

        Nobody can choose names that share a place: it follows from a secret of these processes.
        """
        return self._place_of(name) if self._others else _NAMED

    def _find_place(self, name: str) -> int:
        digest = blake2b(name.encode(), digest_size=_WORD, key=self._seed).digest()
        return _NAMED + int.from_bytes(digest, "big") % (PLACES - _NAMED)


def shared_counts(rows: int) -> IO[bytes]:
    """Return a file without a name in which ``rows`` processes can count; who made it closes it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's
    file.truncate(_size(rows))
    file.write(os.urandom(_SEED_BYTES))
    file.flush()
    return file


def _size(rows: int) -> int:
    return _SEED_BYTES + rows * PLACES * _WORD
