"""How long tasks wait: one sent to an idle worker, and a few beside a tenant with thousands.

*Claim*: from the call of ``enqueue`` in one process to the request in the hands of the engine in
another, which waits for work. *Fairness*: a worker whose engine takes eight at a time, 5 ms each,
works on the tasks of one tenant; nine others come with a few each. The time from their coming to
the answer of their last one is compared with the time that they need with nobody else there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from bench.plan import Raw
from bench.queue_contenders import CONTENDERS, OURS, OURS_UNIX
from bench.queue_plan import QueuePlan
from bench.queue_process import Bench, QueueRunError
from bench.queue_server import QueueServer, queue_server
from bench.queue_systems.marks import Marks
from bench.queue_systems.noop_engine import NoopEngine
from bench.queue_systems.on_forebay import LIMITS, PLENTY, task_of
from bench.statistics import percentile
from forebay.core.request import TaskId, Tenant
from forebay.queue.blobs import FolderBlobs
from forebay.queue.connection import connect
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Outcome
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from forebay.worker.worker import Worker, WorkerLimits

SERVICE_S = 0.005
AT_ONCE = 8
OTHERS = 9
WAIT_LIMIT_S = 120.0
HEAD_START_S = 0.3
PAUSE_S = (0.005, 0.015)
WARM_UP = 50


def claim(plan: QueuePlan, part: str) -> Raw:
    """Measure submit to claim over TCP and over the Unix socket."""
    raw: Raw = {}
    for name in (OURS, OURS_UNIX):
        contender, folder = CONTENDERS[name], plan.folder(part)
        with queue_server(folder / "server") as server:
            bench = Bench(contender, plan.home, server, folder, WARM_UP + plan.sizes.submits)
            Marks.create(folder / "marks", bench.tasks)
            with bench.worker():
                waits = uvloop.run(_submit(bench))[WARM_UP:]
        milliseconds = [1000 * one for one in waits]
        raw[contender.transport] = {
            "p50": percentile(milliseconds, 0.5),
            "p99": percentile(milliseconds, 0.99),
            "all": milliseconds,
        }
        figures = raw[contender.transport]
        plan.say(f"{part}: {name}: P50 {figures['p50']:.2f} ms, P99 {figures['p99']:.2f} ms")
        plan.save(part, raw)
    return raw


async def _submit(bench: Bench) -> list[float]:
    """Send tasks to a worker that waits, with pauses; return the seconds of each until its claim.

    The worker writes when it claimed a task into the file of the marks: see ``Marks.claimed``.
    """
    redis = connect(bench.server.url(bench.contender.transport))
    queue = RedisQueue(redis, "bench", LIMITS)
    await queue.start()
    draw, waits, marks = random.Random(4), [], Marks(bench.folder / "marks")
    try:
        await _worker_there(queue)
        for number in range(bench.tasks):
            await asyncio.sleep(draw.uniform(*PAUSE_S))
            began = time.monotonic()
            await queue.enqueue(task_of(number))
            waits.append(await _claimed(marks, number) - began)
        return waits
    finally:
        await redis.aclose()


async def _worker_there(queue: RedisQueue) -> None:
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not await queue.workers():  # noqa: ASYNC110 - another process comes up
            await asyncio.sleep(0.05)


async def _claimed(marks: Marks, number: int) -> float:
    until = time.monotonic() + WAIT_LIMIT_S
    while not (at := marks.claimed(number)):
        if time.monotonic() > until:
            raise QueueRunError(f"task {number} was not claimed")
        await asyncio.sleep(0.002)
    return at


def fairness(plan: QueuePlan, part: str) -> Raw:
    """Measure what nine tenants wait beside a tenant with thousands of tasks, and without it."""
    sizes = plan.sizes
    raw: Raw = {"alone": [], "beside": [], "greedy": sizes.greedy, "modest": sizes.modest}
    for _ in range(sizes.rounds):
        for name, greedy in (("alone", 0), ("beside", sizes.greedy)):
            with queue_server(plan.folder(part)) as server:
                raw[name].append(uvloop.run(_compete(server, plan, greedy)))
        plan.say(f"{part}: alone {raw['alone'][-1]:.3f} s, beside {raw['beside'][-1]:.3f} s")
        plan.save(part, raw)
    return raw


async def _compete(server: QueueServer, plan: QueuePlan, greedy: int) -> float:
    """Return the seconds from the nine's first task to their last answer."""
    redis, stop = connect(server.tcp), asyncio.Event()
    queue = _Watched(redis, "bench", LIMITS)
    await queue.start()
    await _enqueue(queue, "greedy", range(greedy))
    working = asyncio.create_task(_worker(queue, redis, plan.work).run(stop))
    await asyncio.sleep(HEAD_START_S)
    began = time.monotonic()
    first, count = greedy, plan.sizes.modest
    queue.left = set(range(first, first + OTHERS * count))
    await asyncio.gather(
        *(
            _enqueue(queue, f"modest-{at}", range(first + at * count, first + (at + 1) * count))
            for at in range(OTHERS)
        )
    )
    async with asyncio.timeout(WAIT_LIMIT_S):
        await queue.done.wait()
    seconds = time.monotonic() - began
    stop.set()
    await working
    await redis.aclose()
    return seconds


def _worker(queue: RedisQueue, redis: Redis, folder: Path) -> Worker:
    return Worker(
        "bench",
        queue=queue,
        streams=RedisTokenStreams(redis, "bench", LIMITS),
        blobs=FolderBlobs(folder),
        engine=NoopEngine(seconds=SERVICE_S),
        limits=WorkerLimits(max_leases=AT_ONCE, max_tokens=PLENTY, drain_s=1.0),
    )


class _Watched(RedisQueue):
    """Says when every task of ``left`` has its answer stored."""

    left: set[int]
    done: asyncio.Event

    def __init__(self, redis: Redis, name: str, limits: QueueLimits) -> None:
        super().__init__(redis, name, limits)
        self.left, self.done = set(), asyncio.Event()

    async def finish(self, outcomes: Sequence[Outcome]) -> list[TaskId]:
        """Store results, and look who is left."""
        stored = await super().finish(outcomes)
        waited = bool(self.left)
        self.left -= {int(one.text) for one in outcomes if one.task_id in stored}
        if waited and not self.left:
            self.done.set()
        return stored


async def _enqueue(queue: RedisQueue, tenant: str, numbers: Iterable[int]) -> None:
    for number in numbers:
        await queue.enqueue(replace(task_of(number), tenant=Tenant(tenant)))
