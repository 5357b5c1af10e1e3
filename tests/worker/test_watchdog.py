"""The watchdog of a worker's process: what it takes for hung, and how it ends the process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from forebay.core.events import StepStats
from forebay.core.request import InferenceRequest, TaskId, Terms
from forebay.worker.engine_thread import EngineThread
from forebay.worker.exit_codes import ExitCode
from forebay.worker.watchdog import Watchdog

LIMIT_S, TICK_S = 0.6, 0.05


class Ended:
    """In place of the end of a process."""

    def __init__(self) -> None:
        self.code: ExitCode | None = None
        self.told = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, code: ExitCode, still_s: float) -> None:
        assert still_s > LIMIT_S
        self.code = code
        self._loop.call_soon_threadsafe(self.told.set)


class Stuck:
    """An engine whose step waits for ``released``; ``moving``: its layers go on meanwhile."""

    def __init__(self, moving: bool = False) -> None:
        self.has_work = False
        self.released = threading.Event()
        self._pulse: Iterator[int] = itertools.count() if moving else itertools.repeat(0)

    @property
    def pulse(self) -> int:
        return next(self._pulse)

    def prepare(self, *_: Any) -> object:
        self.released.wait()
        return object()

    def add(self, _: object) -> None:
        self.has_work = True

    def abort(self, _: object) -> None:
        """It is stuck."""

    def step(self) -> Any:
        self.released.wait()
        self.has_work = False
        return SimpleNamespace(events=(), stats=StepStats())

    def close(self) -> None:
        """Nothing is open."""

    def check_integrity(self) -> None:
        """It keeps no books."""


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    engine = Stuck()
    yield engine
    engine.released.set()


async def watched_for(thread: EngineThread, seconds: float, act: Any = None) -> ExitCode | None:
    """Watch a started engine thread; return what the watchdog ended it for, None for nothing."""
    ended = Ended()
    watchdog = Watchdog(lambda: thread.marks, LIMIT_S, end=ended, tick_s=TICK_S)
    with watchdog.watching():
        if act is not None:
            act()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.told.wait(), seconds)
    return ended.code


async def test_a_step_that_never_returns_is_found(stuck: Stuck) -> None:
    thread = EngineThread(stuck)
    thread.start()
    thread.add(TaskId("run"), object())
    assert await watched_for(thread, 30) is ExitCode.ENGINE_HUNG


async def test_a_prepare_that_never_returns_is_found_though_the_engine_is_idle(
    stuck: Stuck,
) -> None:
    thread = EngineThread(stuck)
    thread.start()
    request = InferenceRequest("m", (), sampling=None)  # type: ignore[arg-type]
    preparing = asyncio.create_task(thread.prepare(TaskId("run"), request, {}, Terms()))
    assert await watched_for(thread, 30) is ExitCode.ENGINE_HUNG
    stuck.released.set()
    await preparing
    assert thread.marks == (None, None)


async def test_an_event_loop_that_is_held_up_is_found(stuck: Stuck) -> None:
    thread = EngineThread(stuck)
    thread.start()
    code = await watched_for(thread, 30, act=lambda: time.sleep(LIMIT_S * 4))
    assert code is ExitCode.LOOP_HUNG


async def test_an_idle_engine_and_a_slow_step_that_moves_are_left_alone() -> None:
    slow = Stuck(moving=True)
    thread = EngineThread(slow)
    thread.start()
    try:
        assert await watched_for(thread, LIMIT_S * 3) is None
        thread.add(TaskId("run"), object())
        assert await watched_for(thread, LIMIT_S * 4) is None
    finally:
        slow.released.set()


async def test_waiting_for_the_publisher_is_not_a_hung_engine() -> None:
    """While the queue's server is away results wait, and the engine waits for them."""
    talkative = Stuck()
    talkative.released.set()
    talkative.step = lambda: SimpleNamespace(events=("a",), stats=StepStats())  # type: ignore[method-assign]
    thread = EngineThread(talkative)
    thread.start()
    thread.add(TaskId("run"), object())
    assert await watched_for(thread, LIMIT_S * 4) is None
    talkative.has_work = False
    await thread.next_events()
    assert await thread.stop()


HANGING = """
import asyncio, threading, time
from forebay.worker.watchdog import Watchdog

lock = threading.Lock()

def hold_the_lock():
    with lock:
        time.sleep(600)

async def main():
    with Watchdog(lambda: (MARK,), 0.5, tick_s=0.1).watching():
        threading.Thread(target=hold_the_lock, daemon=True).start()
        time.sleep(0.1)
        HANG

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("mark", "hang", "code"),
    [
        ("1", "await asyncio.sleep(600)", ExitCode.ENGINE_HUNG),
        ("None", "lock.acquire()", ExitCode.LOOP_HUNG),
    ],
    ids=["engine", "a deadlock of the event loop"],
)
def test_the_process_ends_at_once_with_every_stack_and_the_reason_in_its_log(
    mark: str, hang: str, code: ExitCode
) -> None:
    program = HANGING.replace("MARK", mark).replace("HANG", hang)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert "hold_the_lock" in done.stderr
    assert code.name.lower() in done.stdout + done.stderr
