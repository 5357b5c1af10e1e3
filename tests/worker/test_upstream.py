"""The worker with a real Valkey in front of a server that fails in every way: nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.core.request import (
    Cost,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    TextPart,
)
from forebay.core.trace import Trace, new_trace, read_trace
from forebay.engine.upstream import engine as upstream_engine
from forebay.engine.upstream import health
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.engine.upstream.transport import Address
from forebay.ops.worker_status import Phase, read_status
from forebay.queue.blobs import FolderBlobs
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.ports import NewTask, StreamKind, TaskRecord
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from forebay.worker.worker import Worker, WorkerLimits
from tests.engine.fake_upstream import (
    Exchange,
    FakeUpstream,
    cut_after,
    delta,
    refuse,
    say,
    silence,
    stream,
)

LIMITS = WorkerLimits(max_leases=4, heartbeat_s=0.1, idle_wait_s=0.1, drain_s=5, retry_s=5)
WAIT_S = 60
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_engine, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(health, "LONGEST_PAUSE_S", 0.1)


class Rig:
    """A worker before an upstream, and what surrounds it."""

    def __init__(self, queue: RedisQueue, streams: RedisTokenStreams, blobs: FolderBlobs) -> None:
        self.queue, self.streams, self.blobs = queue, streams, blobs

    @asynccontextmanager
    async def working(self, url: str, **limits: Any) -> AsyncIterator[Worker]:
        worker = Worker(
            "w",
            queue=self.queue,
            streams=self.streams,
            blobs=self.blobs,
            engine=UpstreamEngine(Address(url, idle_s=2), unpublished=8, answer_s=60),
            limits=WorkerLimits(**{**_as_dict(LIMITS), **limits}),
        )
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)

    async def submit(
        self, name: str, deadline_s: float | None = None, trace: Trace | None = None
    ) -> TaskId:
        request = InferenceRequest(
            "m", (Message(Role.USER, (TextPart(name),)),), SamplingParams(max_tokens=50)
        )
        cost = Cost(0, 5, 50)
        task = NewTask(TaskId(name), request, cost, deadline_s=deadline_s, trace=trace)
        await self.queue.enqueue(task)
        return TaskId(name)

    async def ended(self, task_id: TaskId) -> TaskRecord:
        return await ended(self.queue, task_id)

    async def said(self, task_id: TaskId) -> list[tuple[StreamKind, str]]:
        async with self.streams.subscribe(task_id) as entries:
            return [(entry.kind, entry.text) async for entry in entries]


def _as_dict(limits: WorkerLimits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in limits.__slots__}


async def ended(queue: RedisQueue, task_id: TaskId) -> TaskRecord:
    async with asyncio.timeout(WAIT_S):
        while True:
            record = await queue.get(task_id)
            assert record is not None
            if record.state.final:
                return record
            await asyncio.sleep(0.02)


def name_of(exchange: Exchange) -> str:
    return str(exchange.asked["messages"][0]["content"])


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - the queue is another process
            await asyncio.sleep(0.02)


@pytest.fixture
def rig(queue: RedisQueue, streams: RedisTokenStreams, blobs: FolderBlobs) -> Rig:
    return Rig(queue, streams, blobs)


async def test_an_upstream_that_dies_in_mid_answer_is_a_restart_and_one_result(rig: Rig) -> None:
    async def dies_once(exchange: Exchange) -> None:
        first = len(server.asked) == 1
        await (cut_after(delta("half ")) if first else say("half ", "and all"))(exchange)

    server = FakeUpstream(chat=dies_once)
    task_id = await rig.submit("task")
    async with server.listening(), rig.working(server.url):
        record = await rig.ended(task_id)
        assert (record.state, record.text, record.deliveries) == (State.FINISHED, "half and all", 2)
        said = await rig.said(task_id)
    kinds = [kind for kind, _ in said]
    assert StreamKind.RESTART in kinds
    assert [kind for kind in kinds if kind.terminal] == [StreamKind.DONE]
    begin = max(at for at, kind in enumerate(kinds) if kind is StreamKind.RESTART)
    assert "".join(text for _, text in said[begin:]) == "half and all"


async def test_each_delivery_is_a_step_of_the_requests_own_trace(rig: Rig) -> None:
    async def dies_once(exchange: Exchange) -> None:
        first = len(server.asked) == 1
        await (cut_after(delta("half ")) if first else say("half ", "and all"))(exchange)

    server, trace = FakeUpstream(chat=dies_once), Trace("a" * 32, "b" * 16, "01", "x=1,y=2")
    async with server.listening(), rig.working(server.url):
        await rig.ended(await rig.submit("traced", trace=trace))
        await rig.ended(await rig.submit("another", trace=new_trace()))
        await rig.ended(await rig.submit("untraced"))
    states = {(name_of(one), one.headers.get("tracestate")) for one in server.asked}
    assert states == {("traced", "x=1,y=2"), ("another", None), ("untraced", None)}
    sent = [(name_of(one), one.headers.get("traceparent")) for one in server.asked]
    steps = [read_trace(told or "") for name, told in sent if name == "traced"]
    assert [(step.trace_id, step.flags) for step in steps if step] == [("a" * 32, "01")] * 2
    assert len({step.span_id for step in steps if step} | {trace.span_id}) == 3
    [another] = [told for name, told in sent if name == "another"]
    assert another is not None
    assert "a" * 32 not in another
    assert [told for name, told in sent if name == "untraced"] == [None]


async def test_while_the_upstream_is_down_nothing_is_delivered_and_nobody_serves(rig: Rig) -> None:
    server = FakeUpstream()
    ids = [await rig.submit(f"task-{index}") for index in range(12)]
    async with server.listening():
        url = server.url
    async with rig.working(url) as worker:
        await asyncio.sleep(1)  # long enough for every one of them to be delivered three times
        assert worker.phase is Phase.WAITING
        assert await rig.queue.workers() == 0
        for task_id in ids:
            record = await rig.queue.get(task_id)
            assert record is not None
            assert (record.state, record.deliveries) == (State.QUEUED, 0)
        async with server.listening():
            for task_id in ids:
                record = await rig.ended(task_id)
                assert (record.state, record.deliveries) == (State.FINISHED, 1)
            assert worker.phase is Phase.READY
            assert await rig.queue.workers() == 1


async def test_an_upstream_that_goes_away_under_a_burst_condemns_nobody(rig: Rig) -> None:
    """It goes and comes back four times; only what was in its hands then counts a delivery."""
    server = FakeUpstream(chat=say("an", "answer"))
    ids = [await rig.submit(f"task-{index}") for index in range(40)]
    async with server.listening():
        url = server.url
    async with rig.working(url):
        for answers in (3, 6, 9, 12):
            async with server.listening():
                await eventually(partial(_at_least, server, answers))
        async with server.listening():
            records = [await rig.ended(task_id) for task_id in ids]
            said = [await rig.said(task_id) for task_id in ids]
    assert {record.state for record in records} == {State.FINISHED}
    assert {record.text for record in records} == {"ananswer"}
    for entries in said:
        assert sum(kind.terminal for kind, _ in entries) == 1


async def _at_least(server: FakeUpstream, count: int) -> bool:
    return len(server.asked) >= count


async def test_a_request_that_kills_the_upstream_is_a_dead_letter_and_its_neighbours_are_not(
    rig: Rig,
) -> None:
    async def poisoned(exchange: Exchange) -> None:
        reply = cut_after() if name_of(exchange) == "poison" else say("well")
        await reply(exchange)

    ids = [await rig.submit(name) for name in ("a", "poison", "b", "c")]
    server = FakeUpstream(chat=poisoned)
    async with server.listening(), rig.working(server.url):
        records = {task_id: await rig.ended(task_id) for task_id in ids}
    poison = records.pop(TaskId("poison"))
    assert {record.state for record in records.values()} == {State.FINISHED}
    assert poison.state is State.DEAD
    assert poison.error is not None
    assert "the upstream closed the connection" in poison.error.message


async def test_a_rejected_request_fails_at_once_with_the_servers_words(rig: Rig) -> None:
    server = FakeUpstream(chat=refuse(400, "no such thing"))
    task_id = await rig.submit("task")
    async with server.listening(), rig.working(server.url) as worker:
        record = await rig.ended(task_id)

        async def counted() -> bool:  # once the queue has answered, which is after the end is seen
            return worker.publisher.tally.failed == 1

        await eventually(counted)
    assert record.state is State.FAILED
    assert record.deliveries == 1
    assert record.error is not None
    assert record.error.message == "The upstream rejects the request: no such thing"


async def test_a_cancel_closes_the_connection_upstream(rig: Rig) -> None:
    server = FakeUpstream(chat=stream(delta("a"), ends=False))
    task_id = await rig.submit("task")
    async with server.listening(), rig.working(server.url):
        await eventually(lambda: _at_least(server, 1))
        assert await rig.queue.cancel(task_id)
        assert (await rig.ended(task_id)).state is State.CANCELLED
        async with asyncio.timeout(WAIT_S):
            await server.asked[0].gone.wait()


async def test_a_drain_gives_back_uncounted_what_the_upstream_does_not_end(rig: Rig) -> None:
    server = FakeUpstream(chat=silence)
    task_id = await rig.submit("task")
    async with server.listening():
        async with rig.working(server.url, drain_s=0.3):
            await eventually(lambda: _at_least(server, 1))
        record = await rig.queue.get(task_id)
        assert record is not None
        assert (record.state, record.deliveries) == (State.QUEUED, 0)
        async with asyncio.timeout(WAIT_S):
            await server.asked[0].gone.wait()


async def test_no_more_is_running_upstream_than_the_worker_may_hold(rig: Rig) -> None:
    running = most = 0

    async def counted(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        await say("x")(exchange)

    ids = [await rig.submit(f"task-{index}") for index in range(20)]
    server = FakeUpstream(chat=counted)
    async with server.listening(), rig.working(server.url):
        for task_id in ids:
            assert (await rig.ended(task_id)).state is State.FINISHED
    assert 2 <= most <= LIMITS.max_leases


BLOCKED = ("torch", "numpy", "safetensors", "tokenizers", "jinja2", "transformers")


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """The variables of a Python that cannot import what the engine of this machine needs."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for name in BLOCKED:
        command = [sys.executable, "-c", f"import {name}"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert b"ModuleNotFoundError" in done.stderr
    return environment


class WorkerProcess:
    """``forebay worker --upstream`` as a user starts it."""

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        command = [sys.executable, "-m", "forebay", "worker", "--name", "w", *arguments]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(folder)], stdout=output, stderr=output, env=environment
            )

    async def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        status = read_status(self.folder / "run", "w")
        return status is not None and status.phase is Phase.READY

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


async def test_the_worker_command_serves_an_upstream_where_torch_is_not_installed(
    redis: Redis, valkey: EmbeddedValkey, tmp_path: Path, without_torch: dict[str, str]
) -> None:
    key = "sk-secret-1"
    environment = {**without_torch, "FOREBAY_CONFIG": "", "FOREBAY_UPSTREAM_API_KEY": key}
    server = FakeUpstream(chat=say("from ", "there"))
    queue = RedisQueue(redis, "main")
    await queue.start()
    async with server.listening():
        url = f"{server.url}/v1"
        worker = WorkerProcess(environment, tmp_path, "--upstream", url, "--queue-url", valkey.url)
        try:
            await eventually(worker.is_ready)
            request = InferenceRequest("m", (Message(Role.USER, (TextPart("hi"),)),))
            await queue.enqueue(NewTask(TaskId("one"), request, Cost(0, 5, 50)))
            record = await ended(queue, TaskId("one"))
        finally:
            code = await asyncio.to_thread(worker.stop)
    assert record.text == "from there"
    assert code == 0
    assert server.asked[0].headers["authorization"] == f"Bearer {key}"
    assert key not in worker.log.read_text()
