"""Ends this process when its engine, or its event loop, has stopped moving.

A thread of its own looks twice a second and waits for nobody: it takes no lock that the watched
threads take. What hung cannot be mended from within, so the process ends with an exit code that
says what hung, after every thread's stack is in the log. Its tasks are delivered to others: by the
supervisor at once, else when their leases run out.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from forebay.core.stillness import Stillness
from forebay.worker.exit_codes import ExitCode

log = structlog.get_logger("forebay.worker")

TICK_S: Final = 0.5
LAST_WORDS_S: Final = 2.0
"""The log may be what the process hangs at; it is waited for so long."""


def end_process(code: ExitCode, still_s: float) -> None:
    """End this process now; nothing of it is waited for but a line in the log."""
    faulthandler.dump_traceback(all_threads=True)
    threading.Timer(LAST_WORDS_S, os._exit, (code,)).start()
    log.critical(code.name.lower(), after_s=round(still_s, 1))
    os._exit(code)


class Watchdog:
    """Watches an engine's ``marks`` (see ``EnginePort``) and the running event loop.

    ``limit_s``: how long either may stand still. ``end`` is called, once, from the watching thread.
    """

    def __init__(
        self,
        marks: Callable[[], tuple[Hashable | None, ...]],
        limit_s: float,
        *,
        end: Callable[[ExitCode, float], None] = end_process,
        tick_s: float = TICK_S,
    ) -> None:
        self._marks = marks
        self._limit_s = limit_s
        self._end = end
        self._tick_s = tick_s
        self._parts = [Stillness(tick_s) for _ in marks()]
        self._loop_stillness = Stillness(tick_s)
        self._asked = 0  # by the watching thread
        self._answered = 0  # by the event loop
        self._over = threading.Event()

    @property
    def engine_still_s(self) -> float:
        """For how long a part of the engine has had work and has not moved."""
        return max((part.for_s for part in self._parts), default=0.0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the running event loop and the engine for the length of the block."""
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._watch, args=(loop,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._over.wait(self._tick_s):
            if (found := self._look(loop)) is not None:
                self._end(*found)
                return

    def _look(self, loop: asyncio.AbstractEventLoop) -> tuple[ExitCode, float] | None:
        now_s = time.monotonic()
        for part, mark in zip(self._parts, self._marks(), strict=True):
            part.see(mark, now_s)
        if self.engine_still_s > self._limit_s:
            return ExitCode.ENGINE_HUNG, self.engine_still_s
        still_s = self._loop_stillness.see(self._answered, now_s)
        if still_s > self._limit_s:
            return ExitCode.LOOP_HUNG, still_s
        if self._answered == self._asked:
            self._asked += 1
            with suppress(RuntimeError):  # it has been closed: the watch is over in a moment
                loop.call_soon_threadsafe(self._answer)
        return None

    def _answer(self) -> None:
        self._answered += 1
