"""The worker with a real Valkey and a real engine on a random checkpoint."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from redis.asyncio import Redis
from structlog.testing import capture_logs

from forebay.core.events import StepStats
from forebay.core.lifecycle import State
from forebay.core.request import (
    Cost,
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    TextPart,
)
from forebay.engine.engine import Engine
from forebay.engine.errors import EngineBrokenError
from forebay.engine.kv_blocks import IntegrityError
from forebay.ops.live.spread import quantile
from forebay.ops.worker_status import Phase
from forebay.queue.blobs import FolderBlobs
from forebay.queue.ports import NewTask, StreamKind, TaskRecord
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from forebay.worker.engine_thread import EngineThread
from forebay.worker.worker import Worker, WorkerLimits
from tests.queue.stumbling import StumblingBlobs

LIMITS = WorkerLimits(max_leases=6, heartbeat_s=0.1, idle_wait_s=0.2, drain_s=20, retry_s=5)


class Rig:
    """A worker and what surrounds it."""

    def __init__(
        self, queue: RedisQueue, streams: RedisTokenStreams, blobs: FolderBlobs, engine: Any
    ) -> None:
        self.queue, self.streams, self.blobs, self.engine = queue, streams, blobs, engine

    def worker(self, limits: WorkerLimits = LIMITS, engine: Any = None) -> Worker:
        return Worker(
            "w",
            queue=self.queue,
            streams=self.streams,
            blobs=self.blobs,
            engine=EngineThread(engine or self.engine),
            limits=limits,
        )

    @asynccontextmanager
    async def working(self, limits: WorkerLimits = LIMITS) -> AsyncIterator[Worker]:
        stop, worker = asyncio.Event(), self.worker(limits)
        task = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)

    async def submit(self, name: str, text: str = "what is it", **sampling: Any) -> TaskId:
        picture = await self.blobs.put(_picture(name))
        parts = (ImagePart(picture, 60, 80), TextPart(text))
        return await self.submit_parts(name, parts, **sampling)

    async def submit_parts(self, name: str, parts: Any, **sampling: Any) -> TaskId:
        request = InferenceRequest(
            "m",
            (Message(Role.USER, parts),),
            SamplingParams(**{"max_tokens": 5, **sampling}),
        )
        task = NewTask(TaskId(name), request, Cost(16, 50, request.sampling.max_tokens))
        await self.queue.enqueue(task)
        return task.task_id

    async def ended(self, task_id: TaskId) -> TaskRecord:
        return await self.until(task_id, lambda record: record.state.final)

    async def first_token(self, task_id: TaskId) -> None:
        async with asyncio.timeout(30), self.streams.subscribe(task_id) as entries:
            async for _ in entries:
                return

    async def until(self, task_id: TaskId, wanted: Callable[[TaskRecord], bool]) -> TaskRecord:
        async with asyncio.timeout(30):
            while True:
                record = await self.queue.get(task_id)
                assert record is not None
                if wanted(record):
                    return record
                await asyncio.sleep(0.02)


def _picture(name: str) -> bytes:
    content = io.BytesIO()
    shade = sum(name.encode()) % 256
    Image.new("RGB", (60, 80), (shade, 255 - shade, 99)).save(content, "JPEG")
    return content.getvalue()


@pytest.fixture
def rig(queue: RedisQueue, streams: RedisTokenStreams, blobs: FolderBlobs, engine: Engine) -> Rig:
    return Rig(queue, streams, blobs, engine)


async def test_every_waiting_task_is_answered_and_its_stream_says_what_its_result_says(
    rig: Rig,
) -> None:
    ids = [await rig.submit(f"task-{index}") for index in range(20)]
    async with rig.working() as worker:
        for task_id in ids:
            record = await rig.ended(task_id)
            assert record.state is State.FINISHED
            assert record.usage is not None
            assert record.usage.completion_tokens >= 1
            async with rig.streams.subscribe(task_id) as entries:
                said = [entry async for entry in entries]
            assert "".join(entry.text for entry in said) == record.text
            assert [entry.kind for entry in said if entry.kind.terminal] == [StreamKind.DONE]
        assert len(worker.held) == 0
        assert worker.publisher.tally.answered == 20
    assert (await rig.queue.depth()).leased == 0
    rig.engine.check_integrity()


async def test_a_task_whose_picture_is_gone_fails_and_its_neighbours_do_not(rig: Rig) -> None:
    lost = await rig.submit_parts("lost", (ImagePart("0" * 64, 60, 80), TextPart("?")))
    fine = await rig.submit("fine")
    async with rig.working():
        record = await rig.ended(lost)
        assert (await rig.ended(fine)).state is State.FINISHED
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "inference_failed"


async def test_a_picture_that_cannot_be_read_now_is_read_by_the_next_delivery(
    rig: Rig, tmp_path: Path
) -> None:
    rig.blobs = StumblingBlobs(tmp_path / "blobs")
    task_id = await rig.submit("task")
    async with rig.working():
        record = await rig.ended(task_id)
    assert (record.state, record.deliveries) == (State.FINISHED, 2)


async def test_a_prompt_that_cannot_fit_fails_with_the_documented_code(rig: Rig) -> None:
    long = await rig.submit("long", text="12 " * 6000)
    async with rig.working():
        record = await rig.ended(long)
    assert record.error is not None
    assert record.error.code == "prompt_too_long"


async def test_a_task_that_waits_for_room_is_claimed_when_there_is_some(rig: Rig) -> None:
    ids = [await rig.submit(f"task-{index}", max_tokens=2) for index in range(6)]
    one_at_a_time = replace(LIMITS, max_tokens=100, idle_wait_s=3)
    async with rig.working(one_at_a_time):
        async with asyncio.timeout(10):  # five waits for work would take longer
            for task_id in ids:
                await rig.ended(task_id)


async def test_a_cancelled_task_leaves_the_engine_and_ends_cancelled(rig: Rig) -> None:
    task_id = await rig.submit("endless", max_tokens=3000)
    async with rig.working() as worker:
        await rig.first_token(task_id)
        assert await rig.queue.cancel(task_id)
        assert (await rig.ended(task_id)).state is State.CANCELLED
        async with asyncio.timeout(10):
            while rig.engine.has_work:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(worker.held) == 0


async def test_a_drain_lets_what_runs_come_to_its_end(rig: Rig) -> None:
    task_id = await rig.submit("running", max_tokens=300)
    async with rig.working():
        await rig.first_token(task_id)
    record = await rig.queue.get(task_id)
    assert record is not None
    assert record.state is State.FINISHED


async def test_a_drain_gives_back_uncounted_what_does_not_end_in_time(rig: Rig) -> None:
    endless = await rig.submit("endless", max_tokens=4000)
    async with rig.working(replace(LIMITS, drain_s=0.2)):
        await rig.first_token(endless)
    record = await rig.queue.get(endless)
    assert record is not None
    assert record.state is State.QUEUED
    assert record.deliveries == 0


class SlowPreparing:
    """An engine whose every prepare takes long, as on a machine that is busy with other things."""

    has_work = False
    free_tokens = 1000

    def __init__(self) -> None:
        self.begun = threading.Event()

    def close(self) -> None:
        pass

    def prepare(self, *_: Any) -> object:
        self.begun.set()
        time.sleep(2)
        return object()

    def abort(self, _: object) -> None:
        """It never had any."""

    def check_integrity(self) -> None:
        """It keeps no books."""


async def test_a_drain_does_not_wait_for_what_was_given_back_unprepared(rig: Rig) -> None:
    for index in range(6):
        await rig.submit(f"slow-{index}")
    engine, stop = SlowPreparing(), asyncio.Event()
    working = asyncio.create_task(rig.worker(engine=engine).run(stop))
    assert await asyncio.to_thread(engine.begun.wait, 20)
    stop.set()
    async with asyncio.timeout(3):  # six of them on two threads take six seconds
        await working
    depth = await rig.queue.depth()
    assert (depth.waiting, depth.leased) == (6, 0)


async def test_work_whose_lease_was_lost_changes_nothing(rig: Rig) -> None:
    task_id = await rig.submit("stolen", max_tokens=400)
    async with rig.working() as worker:
        await rig.until(task_id, lambda record: record.state.held)
        assert await rig.queue.reap("w") == [task_id]  # as if it had been taken for dead
        record = await rig.ended(task_id)
        assert record.deliveries == 2
        assert worker.publisher.tally.answered == 1
    async with rig.streams.subscribe(task_id) as entries:
        said = [entry async for entry in entries]
    begin = max(i for i, entry in enumerate(said) if entry.kind is StreamKind.RESTART)
    assert "".join(entry.text for entry in said[begin:]) == record.text


class LateToSay:
    """A queue that stores results at once and says so only after the next heartbeat's answer."""

    def __init__(self, queue: RedisQueue) -> None:
        self._queue = queue
        self._stored, self._beaten = asyncio.Event(), asyncio.Event()
        self.lost: list[TaskId] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    async def finish(self, outcomes: Any) -> Any:
        stored = await self._queue.finish(outcomes)
        self._stored.set()
        await self._beaten.wait()
        return stored

    async def heartbeat(self, *args: Any, **more: Any) -> Any:
        is_next = self._stored.is_set()
        reply = await self._queue.heartbeat(*args, **more)
        self.lost.extend(reply.lost)
        if is_next:
            asyncio.get_running_loop().call_later(0.02, self._beaten.set)  # it was acted on
        return reply


async def test_a_result_that_is_being_stored_is_no_lost_lease(rig: Rig) -> None:
    rig.queue = late = LateToSay(rig.queue)  # type: ignore[assignment]
    task_id = await rig.submit("late")
    with capture_logs() as lines:
        async with rig.working() as worker:
            await rig.ended(task_id)
            async with asyncio.timeout(30):
                while len(worker.held):
                    await worker.held.wait_for_drop(1.0)
    assert set(late.lost) == {task_id}
    assert [one for one in lines if one["event"] == "lease_dropped"] == []
    [answered] = [one for one in lines if one["event"] == "task_answered"]
    assert answered["task_id"] == task_id


class UnansweredHeartbeats:
    """A queue whose heartbeats are never answered, as when its server is away without a word."""

    def __init__(self, queue: RedisQueue) -> None:
        self._queue = queue
        self.asked = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    async def heartbeat(self, *_: Any, **__: Any) -> Any:
        self.asked.set()
        await asyncio.Event().wait()


async def test_signs_of_life_do_not_wait_for_the_queues_server(rig: Rig) -> None:
    queue, signs = UnansweredHeartbeats(rig.queue), asyncio.Semaphore(0)
    worker = Worker(
        "w",
        queue=queue,
        streams=rig.streams,
        blobs=rig.blobs,
        engine=EngineThread(rig.engine),
        limits=LIMITS,
        on_life=lambda _: signs.release(),
    )
    working = asyncio.create_task(worker.run(asyncio.Event()))
    async with asyncio.timeout(20):
        await queue.asked.wait()
        for _ in range(10):
            await signs.acquire()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_a_worker_that_drains_is_not_counted_as_serving(rig: Rig) -> None:
    task_id = await rig.submit("long", max_tokens=400)
    stop = asyncio.Event()
    working = asyncio.create_task(rig.worker().run(stop))
    await rig.first_token(task_id)
    async with asyncio.timeout(20):
        while await rig.queue.workers() != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        stop.set()
        while await rig.queue.workers() != 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        record = await rig.queue.get(task_id)
        assert record is not None
        assert record.state.held  # it is still at work
        await working
    assert (await rig.ended(task_id)).state is State.FINISHED


class BrokenEngine:
    """An engine whose step raises, as after a device error."""

    has_work = False
    free_tokens = 1000
    closed = False

    def close(self) -> None:
        self.closed = True

    def prepare(self, *_: Any) -> object:
        return object()

    def add(self, _: object) -> None:
        self.has_work = True

    def abort(self, _: object) -> None:
        self.has_work = False

    def step(self) -> Any:
        raise RuntimeError("device lost")


async def test_a_step_that_raises_ends_the_worker_and_its_tasks_are_delivered_again(
    rig: Rig,
) -> None:
    task_id = await rig.submit("unlucky")
    worker = rig.worker(engine=BrokenEngine())
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(worker.run(asyncio.Event()), 20)
    assert raised.group_contains(EngineBrokenError)
    record = await rig.queue.get(task_id)
    assert record is not None
    assert record.state is State.LEASED  # not failed: its worker's end is not its fault
    assert await rig.queue.reap("w") == [task_id]
    async with rig.working():
        assert (await rig.ended(task_id)).state is State.FINISHED


class BrokenAfterAnAnswer(BrokenEngine):
    """An engine that answers once and breaks in the next step."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> Any:
        self.steps += 1
        if self.steps > 1:
            raise RuntimeError("device lost")
        return SimpleNamespace(events=["an answer"], stats=StepStats())


async def test_what_was_answered_before_a_step_raised_is_told_before_it() -> None:
    broken = BrokenAfterAnAnswer()
    engine = EngineThread(broken)
    engine.start()
    engine.add(TaskId("run"), object())
    await asyncio.to_thread(engine._thread.join, 20)
    assert await engine.next_events() == ["an answer"]
    with pytest.raises(EngineBrokenError, match="device lost"):
        await engine.next_events()
    assert await engine.stop()
    assert broken.closed


class Leaking(BrokenEngine):
    """An engine that ends its only sequence without a word and without its blocks."""

    def step(self) -> Any:
        self.has_work = False
        return SimpleNamespace(events=(), stats=StepStats())

    def check_integrity(self) -> None:
        raise IntegrityError("a block is nobody's")


async def test_books_that_do_not_add_up_are_found_when_the_engine_is_idle(rig: Rig) -> None:
    await rig.submit("lost")
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(rig.worker(engine=Leaking()).run(asyncio.Event()), 20)
    assert raised.group_contains(EngineBrokenError, match="a block is nobody's")


async def test_while_the_queue_server_is_away_the_worker_waits_and_then_goes_on(
    rig: Rig, redis: Redis, valkey: Any
) -> None:
    async with rig.working():
        await rig.ended(await rig.submit("before"))
        await asyncio.to_thread(_kill_and_restart, valkey)
        await rig.ended(await rig.submit("after"))
        assert (await rig.ended(TaskId("before"))).state is State.FINISHED


def _kill_and_restart(valkey: Any) -> None:
    valkey._process.kill()
    valkey._process.wait()
    valkey.start()


async def until_drained(worker: Worker) -> None:
    async with asyncio.timeout(60):
        while True:
            if worker.phase is Phase.DRAINED:
                return
            await asyncio.sleep(0.02)


async def test_a_worker_that_stands_aside_ends_what_it_has_takes_nothing_and_comes_back(
    rig: Rig,
) -> None:
    many = [await rig.submit(f"task-{index}", max_tokens=60) for index in range(30)]
    async with rig.working() as worker:
        await rig.ended(many[0])
        worker.stand_aside()
        await until_drained(worker)
        assert await rig.queue.workers() == 0  # the door does not count on it
        depth = await rig.queue.depth()
        assert depth.leased == 0
        assert depth.waiting > 0
        answered = worker.publisher.tally.answered
        await asyncio.sleep(1)
        assert worker.publisher.tally.answered == answered
        worker.step_up()
        for task_id in many:
            record = await rig.ended(task_id)
            assert record.state is State.FINISHED
            assert record.deliveries == 1  # what was given back does not count


async def test_a_drain_that_lasts_too_long_gives_back_what_the_engine_has(rig: Rig) -> None:
    task_id = await rig.submit("long", max_tokens=400)
    async with rig.working(replace(LIMITS, drain_s=0.1)) as worker:
        await rig.first_token(task_id)
        worker.stand_aside()
        await until_drained(worker)
        record = await rig.queue.get(task_id)
        assert record is not None
        assert record.state in (State.QUEUED, State.FINISHED)
        worker.step_up()
        assert (await rig.ended(task_id)).state is State.FINISHED


async def test_times_are_counted_from_the_arrival_and_forgotten_with_the_lease(rig: Rig) -> None:
    ids = [await rig.submit(f"task-{index}", max_tokens=8) for index in range(4)]
    await asyncio.sleep(1.2)  # before anybody claims them: they wait for so long
    async with rig.working() as worker:
        for task_id in ids:
            await rig.ended(task_id)
        times = worker.publisher.times
        assert [sum(one.counts) for one in (times.ttft, times.tpot, times.latency)] == [4, 4, 4]
        assert quantile(times.ttft.counts, 0.01) >= 1.0  # type: ignore[operator]
        assert quantile(times.tpot.counts, 0.5) < 1.0  # type: ignore[operator]
        assert not times._created
        assert not times._first
        assert worker._engine.load.decode_tokens > 0
        assert worker._engine.load.running == 0
