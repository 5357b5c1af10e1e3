"""Forebay: the worker as it is, before an engine that answers at once; or the queue alone."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from bench.queue_systems.clock import Sent, await_all, read_all
from bench.queue_systems.marks import Marks
from bench.queue_systems.noop_engine import NoopEngine, number_of
from forebay.core.request import Cost, InferenceRequest, Message, Role, TaskId, TextPart
from forebay.queue.blobs import FolderBlobs
from forebay.queue.connection import connect
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import NewTask, Outcome
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from forebay.worker.signals import StopSignal
from forebay.worker.worker import Worker, WorkerLimits

COST = Cost(visual_tokens=0, text_tokens=8, output_tokens=8)
LIMITS = QueueLimits(max_waiting=10**9, max_waiting_tokens=10**15)
CONCURRENCY = int(os.environ.get("QUEUE_CONCURRENCY", "256"))
PLENTY = 10**9


@asynccontextmanager
async def opened(queue_type: type[RedisQueue] = RedisQueue) -> AsyncIterator[RedisQueue]:
    """Open the queue of this run; its library is loaded."""
    redis = connect(os.environ["QUEUE_URL"])
    try:
        queue = queue_type(redis, "bench", LIMITS)
        await queue.start()
        yield queue
    finally:
        await redis.aclose()


def task_of(number: int) -> NewTask:
    """Return a task that asks for a number."""
    request = InferenceRequest("noop", (Message(Role.USER, (TextPart(str(number)),)),))
    return NewTask(TaskId(uuid.uuid4().hex), request, COST)


class MarkedQueue(RedisQueue):
    """Marks each task as run when the queue has said that its answer is stored."""

    marks: Marks

    async def finish(self, outcomes: Sequence[Outcome]) -> list[TaskId]:
        """Store results, then mark those that were stored."""
        stored = await super().finish(outcomes)
        kept = set(stored)
        for outcome in outcomes:
            if outcome.task_id in kept:
                self.marks.ran(int(outcome.text))
        return stored


async def _send(count: int) -> Sent:
    async with opened() as queue:
        return await await_all(
            lambda number: queue.enqueue(task_of(number)), count, lambda held: str(held.task_id)
        )


async def _read(names: list[str]) -> list[Any]:
    async with opened() as queue:

        async def read(name: str) -> Any:
            record = await queue.get(TaskId(name))
            return int(record.text) if record and record.text else None

        return await read_all(read, names)


async def _work() -> None:
    """Run the worker that ``forebay worker`` runs, until SIGTERM."""
    MarkedQueue.marks = Marks.of_environment()
    async with opened(MarkedQueue) as queue:
        redis = connect(os.environ["QUEUE_URL"])
        worker = Worker(
            "bench",
            queue=queue,
            streams=RedisTokenStreams(redis, "bench", LIMITS),
            blobs=FolderBlobs(Path(os.environ["QUEUE_FOLDER"])),
            engine=NoopEngine(MarkedQueue.marks.claim),
            limits=WorkerLimits(max_leases=CONCURRENCY, max_tokens=PLENTY),
        )
        with StopSignal().listening() as stop:
            await worker.run(stop.asked, stop.hurried)
        await redis.aclose()


async def _work_alone() -> None:
    """Claim and finish without a worker around: what the queue itself costs."""
    MarkedQueue.marks = Marks.of_environment()
    async with opened(MarkedQueue) as queue:
        with StopSignal().listening() as stop:
            while not stop.asked.is_set():
                leases = await queue.claim("bench", CONCURRENCY, PLENTY)
                outcomes = []
                for one in leases:
                    number = number_of(one.request)
                    MarkedQueue.marks.claim(number)
                    outcomes.append(Outcome(one.task_id, one.fence, str(number)))
                await queue.finish(outcomes)
                if not leases:
                    await asyncio.sleep(0.01)


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return uvloop.run(_send(count))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    return uvloop.run(_read(names))


def work() -> None:
    """Answer until SIGTERM."""
    alone = os.environ.get("QUEUE_ALONE") == "1"
    uvloop.run(_work_alone() if alone else _work())
