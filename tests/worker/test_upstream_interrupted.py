"""A worker before an upstream that is interrupted at each step: one result, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from forebay.core.errors import QueueUnavailableError
from forebay.core.lifecycle import State
from forebay.core.request import Cost, InferenceRequest, Message, Role, TaskId, TextPart
from forebay.queue.blobs import FolderBlobs
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.ports import NewTask, StreamKind, StreamWrite
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from forebay.worker.worker import Worker
from tests.engine.fake_upstream import (
    Exchange,
    FakeUpstream,
    Reply,
    cut_after,
    delta,
    refuse,
    say,
    silence,
    stream,
)
from tests.worker.test_upstream import WAIT_S, Rig, WorkerProcess, _quick, ended, eventually, rig

__all__ = ["_quick", "rig"]


async def shown(rig: Rig, task_id: TaskId) -> str:
    """Return what a reader of the stream is left with; it must end exactly once."""
    said = await rig.said(task_id)
    assert sum(kind.terminal for kind, _ in said) == 1
    kinds = [kind for kind, _ in said]
    begin = len(kinds) - kinds[::-1].index(StreamKind.RESTART) if StreamKind.RESTART in kinds else 0
    return "".join(text for _, text in said[begin:])


async def _asked(server: FakeUpstream, count: int) -> bool:
    return len(server.asked) >= count


async def _probed(server: FakeUpstream, count: int) -> bool:
    return len(server.probes) >= count + 1  # the first one found it well


async def _idle(worker: Worker) -> bool:
    return not len(worker.held)


def first_then(first: Reply, then: Reply, server: list[FakeUpstream]) -> Reply:
    async def reply(exchange: Exchange) -> None:
        await (first if len(server[0].asked) == 1 else then)(exchange)

    return reply


def once(first: Reply, then: Reply) -> FakeUpstream:
    """A server that answers the first request in one way and all others in another."""
    there: list[FakeUpstream] = []
    there.append(FakeUpstream(chat=first_then(first, then, there)))
    return there[0]


async def test_a_lease_lost_in_mid_stream_closes_the_connection_and_shows_one_answer(
    rig: Rig,
) -> None:
    server = once(stream(delta("old "), ends=False), say("new ", "answer"))
    task_id = await rig.submit("task")
    async with server.listening(), rig.working(server.url) as worker:
        async with asyncio.timeout(WAIT_S), rig.streams.subscribe(task_id) as entries:
            async for _ in entries:
                break
        assert await rig.queue.reap("w") == [task_id]  # as if it had been taken for dead
        record = await rig.ended(task_id)
        async with asyncio.timeout(WAIT_S):
            await server.asked[0].gone.wait()
        assert worker.publisher.tally.answered == 1
    assert (record.text, record.deliveries) == ("new answer", 2)
    assert await shown(rig, task_id) == "new answer"


class LosesReplies(RedisTokenStreams):
    """Writes tokens, and every so often does not hear that it did."""

    appends = 0

    async def append(
        self, writes: Sequence[StreamWrite], *, nonce: str | None = None
    ) -> set[TaskId]:
        stale = await super().append(writes, nonce=nonce)
        self.appends += 1
        if self.appends in (1, 4):
            raise QueueUnavailableError("no answer in time", retry_after=1)
        return stale


async def test_a_write_of_tokens_that_fails_doubles_no_text_and_counts_nothing(
    queue: RedisQueue, redis: Redis, blobs: FolderBlobs
) -> None:
    async def slowly(exchange: Exchange) -> None:
        await exchange.head()
        for text in "abcd":
            await exchange.send(delta(text))
            await asyncio.sleep(0.05)
        await exchange.send(delta("", "stop"))
        await exchange.end()

    async with LosesReplies(redis, "test") as streams:
        rig = Rig(queue, streams, blobs)
        server, task_id = FakeUpstream(chat=slowly), await rig.submit("task")
        async with server.listening(), rig.working(server.url):
            record = await rig.ended(task_id)
        assert streams.appends > 4
        assert (record.text, record.deliveries) == ("abcd", 1)
        assert await shown(rig, task_id) == "abcd"


PHASES: dict[str, tuple[Reply, Reply]] = {
    "before the first byte": (silence, say("w")),
    "in the stream": (stream(delta("a"), ends=False), say("w")),
    "in half a line": (stream(delta("a"), b'data: {"choi', ends=False), say("w")),
    "in the pause of a busy server": (refuse(429, retry_after="30"), say("w")),
    "while the server is asked whose fault it was": (refuse(500), silence),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancel_is_heard_in_every_phase(rig: Rig, phase: str) -> None:
    server = FakeUpstream()
    async with server.listening(), rig.working(server.url) as worker:
        await rig.ended(await rig.submit("before"))
        server.chat, server.warm_up = PHASES[phase]
        task_id = await rig.submit("task")
        await eventually(partial(_asked, server, 2))
        await asyncio.sleep(0.3)
        assert await rig.queue.cancel(task_id)
        assert (await rig.ended(task_id)).state is State.CANCELLED
        await eventually(partial(_idle, worker))
        server.warm_up = say("w")
        server.drop_all()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_drain_gives_back_uncounted_in_every_phase(rig: Rig, phase: str) -> None:
    server = FakeUpstream()
    async with server.listening():
        async with rig.working(server.url, drain_s=0.2):
            await rig.ended(await rig.submit("before"))
            server.chat, server.warm_up = PHASES[phase]
            task_id = await rig.submit("task")
            await eventually(partial(_asked, server, 2))
            await asyncio.sleep(0.3)
        record = await rig.queue.get(task_id)
        assert record is not None
        assert (record.state, record.deliveries) == (State.QUEUED, 0)
        server.chat, server.warm_up = say("after"), say("w")
        server.drop_all()
        async with rig.working(server.url):
            assert (await rig.ended(task_id)).text == "after"
        assert await shown(rig, task_id) == "after"


@pytest.mark.parametrize("phase", PHASES)
async def test_a_deadline_ends_a_task_in_every_phase(rig: Rig, phase: str) -> None:
    server = FakeUpstream()
    async with server.listening(), rig.working(server.url) as worker:
        await rig.ended(await rig.submit("before"))
        server.chat, server.warm_up = PHASES[phase]
        task_id = await rig.submit("task", deadline_s=4.0)
        record = await rig.ended(task_id)
        assert record.state is State.EXPIRED
        assert len(server.asked) >= 2
        await eventually(partial(_idle, worker))
        server.warm_up = say("w")
        server.drop_all()


async def test_a_silent_upstream_costs_the_waiting_tasks_no_delivery(rig: Rig) -> None:
    """It takes connections and answers nothing: only what was in its hands counts."""
    server = FakeUpstream(chat=silence)
    async with server.listening(), rig.working(server.url, max_leases=1):
        held = await rig.submit("held")
        await eventually(partial(_asked, server, 1))
        server.warm_up = silence
        waiting = [await rig.submit(f"task-{index}") for index in range(4)]
        await eventually(partial(_probed, server, 3))  # two went by: each is silent for 2 s
        assert len(server.asked) == 1
        server.chat, server.warm_up = say("well"), say("w")
        assert (await rig.ended(held)).deliveries == 2
        for task_id in waiting:
            assert (await rig.ended(task_id)).deliveries == 1


async def test_a_worker_killed_while_the_upstream_streams_leaves_its_task_to_the_next(
    redis: Redis, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    server = once(stream(delta("half"), ends=False), say("whole"))
    queue = RedisQueue(redis, "main")
    await queue.start()
    arguments = ("--queue-url", valkey.url)
    environment = {**os.environ, "FOREBAY_CONFIG": ""}
    async with server.listening(), RedisTokenStreams(redis, "main") as streams:
        rig = Rig(queue, streams, FolderBlobs(tmp_path / "blobs"))
        start = partial(WorkerProcess, environment, tmp_path, "--upstream", server.url, *arguments)
        worker = start()
        try:
            await eventually(worker.is_ready)
            request = InferenceRequest("m", (Message(Role.USER, (TextPart("hi"),)),))
            await queue.enqueue(NewTask(TaskId("one"), request, Cost(0, 5, 50)))
            await eventually(partial(_asked, server, 1))
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait(WAIT_S)
            async with asyncio.timeout(WAIT_S):
                await server.asked[0].gone.wait()
            worker = start()
            record = await ended(queue, TaskId("one"))
        finally:
            code = await asyncio.to_thread(worker.stop)
        assert (record.text, record.deliveries, code) == ("whole", 2, 0)
        assert await shown(rig, TaskId("one")) == "whole"


async def test_an_upstream_that_breaks_every_answer_of_many_loses_none(rig: Rig) -> None:
    """Each answer breaks off twice, in its own way, and comes whole at the third delivery."""
    seen: dict[str, int] = {}

    async def third_time(exchange: Exchange) -> None:
        name = str(exchange.asked["messages"][0]["content"])
        seen[name] = seen.get(name, 0) + 1
        ways = [cut_after(delta("x")), stream(delta("y"), b"data: {\n\n"), say(name)]
        await ways[seen[name] - 1](exchange)

    server = FakeUpstream(chat=third_time)
    ids = [await rig.submit(f"task-{index}") for index in range(8)]
    async with server.listening(), rig.working(server.url):
        for task_id in ids:
            record = await rig.ended(task_id)
            assert (record.state, record.text, record.deliveries) == (State.FINISHED, task_id, 3)
            assert await shown(rig, task_id) == task_id
