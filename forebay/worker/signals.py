"""How a process is asked to stop: at leisure, in order, or, asked twice, at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

ASKED: Final = (signal.SIGINT, signal.SIGTERM)

LEISURE: Final = signal.SIGUSR2
"""Stop, and take the time to end what has been begun: another process takes this one's place."""


class StopSignal:
    """``asked``: stop. ``hurried``: stop now, a second signal came.

    ``at_leisure``: nobody waits for the end. A stop in order may follow, which is no hurry then.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.at_leisure = False

    def ask(self) -> None:
        """Ask for a stop; the second time it is urgent."""
        if self.asked.is_set() and not self.at_leisure:
            self.hurried.set()
        self.at_leisure = False
        self.asked.set()

    def ask_at_leisure(self) -> None:
        """Ask for a stop that may take long; it slows none down that is under way."""
        if not self.asked.is_set():
            self.at_leisure = True
        self.asked.set()

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Turn SIGINT and SIGTERM into ``ask`` while the block runs."""
        loop = asyncio.get_running_loop()
        for one in ASKED:
            loop.add_signal_handler(one, self.ask)
        loop.add_signal_handler(LEISURE, self.ask_at_leisure)
        try:
            yield self
        finally:
            for one in (*ASKED, LEISURE):
                loop.remove_signal_handler(one)
