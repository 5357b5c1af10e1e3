"""How a process is asked to stop: once in order, twice at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

ASKED = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """``asked``: stop in order. ``hurried``: stop now, a second signal came."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self) -> None:
        """Ask for a stop; the second time it is urgent."""
        if self.asked.is_set():
            self.hurried.set()
        self.asked.set()

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Turn SIGINT and SIGTERM into ``ask`` while the block runs."""
        loop = asyncio.get_running_loop()
        for one in ASKED:
            loop.add_signal_handler(one, self.ask)
        try:
            yield self
        finally:
            for one in ASKED:
                loop.remove_signal_handler(one)
