"""Keys of a terminal, one by one, without waiting for a line's end."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

_NAMED: Final = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down"}
_MOST_HELD: Final = 64


@asynccontextmanager
async def pressed_keys() -> AsyncIterator[asyncio.Queue[str]]:
    """Return a queue of the keys that are pressed while the block runs; ``q`` at the input's end.

    The terminal is as it was afterwards, whatever happens.
    """
    keys: asyncio.Queue[str] = asyncio.Queue(_MOST_HELD)
    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    def read() -> None:
        try:
            told = os.read(descriptor, 256).decode("utf-8", errors="ignore")
        except OSError:  # the terminal is gone
            told = ""
        for key in _split(told) or ["q"]:
            if not keys.full():
                keys.put_nowait(key)
        if not told:
            loop.remove_reader(descriptor)

    with _single_keys(descriptor):
        loop.add_reader(descriptor, read)
        try:
            yield keys
        finally:
            loop.remove_reader(descriptor)


@contextmanager
def _single_keys(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _split(told: str) -> list[str]:
    """Return the keys of what was read at once; of sequences those that mean something here."""
    keys = []
    while told:
        name = next((one for one in _NAMED if told.startswith(one)), None)
        if name is not None:
            keys.append(_NAMED[name])
        elif told[0] != "\x1b":
            keys.append(told[0])
        told = told[len(name or told[0]) :]
    return keys
