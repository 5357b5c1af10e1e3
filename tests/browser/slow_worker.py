"""Stands in for a stack's workers, at a test's own pace: what a page shows while it waits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forebay.core.events import Usage
from forebay.queue.connection import connect
from forebay.queue.ports import Lease, Outcome, StreamWrite
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from scripts.running_stack import RunningStack
from tests.browser.conftest import WAIT_MS


@contextmanager
def frozen_workers(stack: RunningStack) -> Iterator[None]:
    """Stop the workers' clocks, so that a question surely waits."""
    statuses = stack.data_dir.glob("run/*.status.json")
    pids = [json.loads(path.read_text(encoding="utf-8"))["pid"] for path in statuses]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


PIECES = ("The tag ", "says ¥12.50", ", and the price ", "is right.")


@contextmanager
def slow_worker(stack: RunningStack) -> Iterator[SlowWorker]:
    """Stand in for the stack's own workers, at the test's pace."""
    with frozen_workers(stack), ThreadPoolExecutor(1) as thread:
        yield SlowWorker(f"unix://{stack.data_dir}/queue/valkey.sock", thread)


@dataclass
class SlowWorker:
    """Its calls run in another thread: the browser's client holds this one's event loop."""

    url: str
    thread: ThreadPoolExecutor

    def lease(self) -> Lease:
        leases: list[Lease] = []
        while not leases:
            leases = self._with(lambda queue, _: queue.claim("slow", 1, 10**6))
        return leases[0]

    def say(self, lease: Lease, *texts: str) -> None:
        for text in texts:
            write = StreamWrite(lease.task_id, lease.fence, text, 1)
            stale = self._with(lambda _, streams, write=write: streams.append([write]))
            assert not stale

    def finish(self, lease: Lease, text: str) -> None:
        outcome = Outcome(lease.task_id, lease.fence, text=text, usage=Usage(5, len(PIECES)))
        assert self._with(lambda queue, _: queue.finish([outcome])) == [lease.task_id]

    def drop(self, lease: Lease) -> None:
        """Heed the cancel that a heartbeat tells of."""
        pair = [(lease.task_id, lease.fence)]
        while not self._with(lambda queue, _: queue.heartbeat("slow", pair)).cancelled:
            pass
        self.release(lease)

    def release(self, lease: Lease) -> None:
        pair = [(lease.task_id, lease.fence)]
        assert self._with(lambda queue, _: queue.release(pair)) == [lease.task_id]

    def _with(self, act: Callable[[RedisQueue, RedisTokenStreams], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            redis = connect(self.url)
            try:
                return await act(RedisQueue(redis), RedisTokenStreams(redis))
            finally:
                await redis.aclose()

        return self.thread.submit(lambda: asyncio.run(run())).result(WAIT_MS / 1000)
