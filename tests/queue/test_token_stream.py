from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from forebay.core.errors import QueueUnavailableError, TaskFailedError, TaskNotFoundError
from forebay.core.events import Choice, Piece, TokenLogprob, Usage
from forebay.core.request import TaskId
from forebay.queue import stream_reader
from forebay.queue.ports import (
    STREAM_START,
    Lease,
    Outcome,
    StreamEntry,
    StreamId,
    StreamKind,
    StreamWrite,
    TaskError,
)
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import STREAM_BUFFER, Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.making import PLENTY, answer, held, run_out, task

DELTA, DONE, RESTART = StreamKind.DELTA, StreamKind.DONE, StreamKind.RESTART


async def lease_of(queue: RedisQueue, name: str = "a") -> Lease:
    await queue.enqueue(task(name))
    (lease,) = await queue.claim("w", 1, PLENTY)
    return lease


async def say(streams: RedisTokenStreams, lease: Lease, *texts: str) -> set[TaskId]:
    stale: set[TaskId] = set()
    for text in texts:
        stale |= await streams.append([StreamWrite(lease.task_id, lease.fence, text, 1)])
    return stale


async def everything(
    streams: RedisTokenStreams, name: str, after: StreamId = STREAM_START
) -> list[StreamEntry]:
    async with asyncio.timeout(10):
        async with streams.subscribe(TaskId(name), after) as entries:
            return [entry async for entry in entries]


def told(entries: list[StreamEntry]) -> list[tuple[StreamKind, str]]:
    return [(entry.kind, entry.text) for entry in entries]


@asynccontextmanager
async def following(
    streams: RedisTokenStreams, name: str, after: StreamId = STREAM_START
) -> AsyncIterator[asyncio.Task[list[StreamEntry]]]:
    """Follow a task from now on, in the background."""
    async with streams.subscribe(TaskId(name), after) as entries:

        async def collect() -> list[StreamEntry]:
            return [entry async for entry in entries]

        collecting = asyncio.create_task(collect())
        try:
            yield collecting
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)


async def test_a_subscriber_sees_tokens_as_they_come_and_the_end(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    await queue.enqueue(task("a"))
    async with asyncio.timeout(10), streams.subscribe(TaskId("a")) as entries:
        (lease,) = await queue.claim("w", 1, PLENTY)
        for text in ("价", "格"):
            await say(streams, lease, text)
            entry = await anext(entries)
            assert (entry.kind, entry.text, entry.tokens) == (DELTA, text, 1)
        usage = Usage(5, 2)
        await queue.finish([Outcome(lease.task_id, lease.fence, "价格", "stop", usage)])
        end = await anext(entries)
        assert end.kind is DONE
        assert end.fields == {"finish_reasons": ["stop"], "usage": usage.to_dict()}
        with pytest.raises(StopAsyncIteration):
            await anext(entries)


async def test_a_stream_is_whole_after_the_end(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    lease = await lease_of(queue)
    texts = [str(i) for i in range(200)]
    await say(streams, lease, *texts)
    await queue.finish([answer(lease)])
    assert told(await everything(streams, "a")) == [(DELTA, t) for t in texts] + [(DONE, "")]


@pytest.mark.parametrize("ended", [True, False])
async def test_a_reader_resumes_after_the_id_it_has(
    queue: RedisQueue, streams: RedisTokenStreams, ended: bool
) -> None:
    lease = await lease_of(queue)
    await say(streams, lease, "a", "b", "c")
    async with streams.subscribe(TaskId("a")) as entries:
        seen = [await anext(entries) for _ in range(2)]
    if ended:
        await queue.finish([answer(lease)])
        rest = await everything(streams, "a", seen[-1].stream_id)
    else:
        async with following(streams, "a", seen[-1].stream_id) as collecting:
            await queue.finish([answer(lease)])
            rest = await asyncio.wait_for(collecting, 10)
    assert told(rest) == [(DELTA, "c"), (DONE, "")]
    assert await everything(streams, "a", rest[-1].stream_id) == []


async def test_a_redelivery_restarts_the_stream(
    queue: RedisQueue, streams: RedisTokenStreams, redis: Redis, keys: Keys
) -> None:
    lease = await lease_of(queue)
    async with following(streams, "a") as collecting:
        await say(streams, lease, "old")
        await run_out(redis, keys, "a")
        (again,) = await queue.claim("w2", 1, PLENTY)
        assert await say(streams, lease, "stale") == {"a"}
        await say(streams, again, "new")
        await queue.finish([answer(again)])
        live = await asyncio.wait_for(collecting, 10)
    assert told(live)[-3:] == [(RESTART, ""), (DELTA, "new"), (DONE, "")]
    # Who comes later is spared what is void.
    assert told(await everything(streams, "a")) == [(RESTART, ""), (DELTA, "new"), (DONE, "")]


async def test_a_released_task_restarts_its_stream(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    lease = await lease_of(queue)
    await say(streams, lease, "old")
    await queue.release([held(lease)])
    assert await say(streams, lease, "stale") == {"a"}
    (again,) = await queue.claim("w", 1, PLENTY)
    await queue.finish([answer(again)])
    assert told(await everything(streams, "a")) == [(RESTART, ""), (DONE, "")]


async def test_nothing_follows_the_end(queue: RedisQueue, streams: RedisTokenStreams) -> None:
    lease = await lease_of(queue)
    await queue.finish([answer(lease)])
    assert await say(streams, lease, "late") == {"a"}
    assert told(await everything(streams, "a")) == [(DONE, "")]


async def test_one_append_serves_a_whole_batch(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    leases = []
    for name in "abc":
        leases.append(await lease_of(queue, name))
    await queue.finish([answer(leases[1])])
    writes = [StreamWrite(lease.task_id, lease.fence, lease.task_id, 2) for lease in leases]
    assert await streams.append(writes) == {"b"}
    await queue.finish([answer(leases[0])])
    assert told(await everything(streams, "a")) == [(DELTA, "a"), (DONE, "")]
    assert await streams.append([]) == set()


async def test_an_append_sent_twice_is_written_once(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    lease = await lease_of(queue)
    row = (lease.task_id, lease.fence, "x", 1, "", "")
    for nonce in ("n1", "n1", "n2"):
        await streams._library.append(nonce, [row])
    await queue.finish([answer(lease)])
    assert told(await everything(streams, "a")) == [(DELTA, "x"), (DELTA, "x"), (DONE, "")]


@pytest.mark.parametrize("while_waiting", [True, False])
async def test_an_end_without_an_answer_is_told(
    queue: RedisQueue, streams: RedisTokenStreams, while_waiting: bool
) -> None:
    await queue.enqueue(task("a"))
    async with following(streams, "a") as collecting:
        if while_waiting:
            await queue.cancel(TaskId("a"))
            expected = (StreamKind.CANCELLED, "cancelled")
        else:
            (lease,) = await queue.claim("w", 1, PLENTY)
            error = TaskError("inference_failed", "no")
            await queue.finish([Outcome(lease.task_id, lease.fence, error=error)])
            expected = (StreamKind.ERROR, "inference_failed")
        (end,) = await asyncio.wait_for(collecting, 10)
    assert (end.kind, end.fields["code"]) == expected
    assert end.fields["message"]


async def test_a_dead_letter_is_told(queue: RedisQueue, streams: RedisTokenStreams) -> None:
    await queue.enqueue(task("a"))
    for _ in range(3):
        await queue.claim("w", 1, PLENTY)
        await queue.reap("w")
    assert (await everything(streams, "a"))[-1].fields["code"] == "dead_letter"


async def test_an_unknown_task_has_no_stream(streams: RedisTokenStreams) -> None:
    with pytest.raises(TaskNotFoundError):
        await everything(streams, "nobody")


@pytest.mark.parametrize("place", ["", "x", "1", "-", "1-", "1-x", "1-1-1", "٣-1", f"{2**64}-0"])
async def test_a_malformed_place_is_refused(streams: RedisTokenStreams, place: str) -> None:
    with pytest.raises(ValueError, match="not a place"):
        await everything(streams, "a", StreamId(place))


async def test_many_subscribers_share_one_connection(
    queue: RedisQueue, streams: RedisTokenStreams, redis: Redis
) -> None:
    leases = [await lease_of(queue, f"t{i}") for i in range(60)]
    before = await redis.info("clients")

    async def follow(lease: Lease) -> list[tuple[StreamKind, str]]:
        return told(await everything(streams, lease.task_id))

    following_all = [asyncio.create_task(follow(lease)) for lease in leases for _ in range(3)]
    async with asyncio.timeout(20):
        while len(streams._reader._subscriptions) < len(leases):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    during = await redis.info("clients")
    blocked = during["blocked_clients"] - before["blocked_clients"]
    assert blocked <= 1
    for step in ("x", "y"):
        await streams.append([StreamWrite(each.task_id, each.fence, step, 1) for each in leases])
    await queue.finish([answer(lease) for lease in leases])
    for seen in await asyncio.wait_for(asyncio.gather(*following_all), 20):
        assert seen == [(DELTA, "x"), (DELTA, "y"), (DONE, "")]
    assert not streams._reader._subscriptions


async def test_one_that_joins_late_misses_nothing(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    """The shared read stands further on when the second one comes from the start."""
    lease = await lease_of(queue)
    async with following(streams, "a") as first:
        texts = [str(i) for i in range(30)]
        late: list[asyncio.Task[list[StreamEntry]]] = []
        for text in texts:
            await say(streams, lease, text)
            late.append(asyncio.create_task(everything(streams, "a")))
        await queue.finish([answer(lease)])
        for collecting in (first, *late):
            entries = await asyncio.wait_for(collecting, 10)
            assert [entry.text for entry in entries] == [*texts, ""]


async def test_a_slow_subscriber_is_bounded_and_still_gets_all(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    lease = await lease_of(queue)
    texts = [str(i) for i in range(3 * STREAM_BUFFER)]
    async with asyncio.timeout(30), streams.subscribe(TaskId("a")) as slow:
        async with following(streams, "a") as quick:
            await say(streams, lease, *texts)
            await queue.finish([answer(lease)])
            assert len(await asyncio.wait_for(quick, 10)) == len(texts) + 1
        (subscription,) = streams._reader._subscriptions[streams._keys.stream(TaskId("a"))]
        assert len(subscription._entries) <= STREAM_BUFFER
        assert [entry.text async for entry in slow] == [*texts, ""]


async def test_the_end_of_the_reader_ends_its_subscribers(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("a"))
    streams = RedisTokenStreams(redis, keys.name)
    await streams.start()
    async with following(streams, "a") as collecting:
        await asyncio.sleep(0.02)
        await streams.aclose()
        with pytest.raises(QueueUnavailableError):
            await asyncio.wait_for(collecting, 10)


async def test_reading_survives_a_cut_connection(
    queue: RedisQueue, streams: RedisTokenStreams, redis: Redis
) -> None:
    lease = await lease_of(queue)
    async with following(streams, "a") as collecting:
        await say(streams, lease, "before")
        await redis.client_kill_filter(_type="normal", skipme=True)
        await say(streams, lease, "after")
        await queue.finish([answer(lease)])
        seen = await asyncio.wait_for(collecting, 10)
    assert told(seen) == [(DELTA, "before"), (DELTA, "after"), (DONE, "")]


async def test_an_entry_that_cannot_be_read_fails_its_own_subscribers_only(
    queue: RedisQueue, streams: RedisTokenStreams, redis: Redis, keys: Keys
) -> None:
    damaged, sound = await lease_of(queue, "damaged"), await lease_of(queue, "sound")
    async with following(streams, "damaged") as failing, following(streams, "sound") as collecting:
        await redis.xadd(keys.stream(TaskId("damaged")), {"k": "of another release"})
        with pytest.raises(TaskFailedError):
            await asyncio.wait_for(failing, 10)
        await say(streams, sound, "42")
        await queue.finish([answer(sound), answer(damaged)])
        assert told(await asyncio.wait_for(collecting, 10)) == [(DELTA, "42"), (DONE, "")]


async def test_a_server_that_stays_away_ends_the_wait(
    queue: RedisQueue, streams: RedisTokenStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_there(*args: object, **kwargs: object) -> None:
        raise RedisConnectionError("nobody there")

    await queue.enqueue(task("a"))
    async with following(streams, "a") as collecting:
        monkeypatch.setattr(stream_reader, "PATIENCE_S", 0.1)
        monkeypatch.setattr(stream_reader, "read_streams", nobody_there)
        with pytest.raises(QueueUnavailableError):
            await asyncio.wait_for(collecting, 20)


async def test_answers_after_the_first_and_logprobs_pass_through_stream_and_result(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    lease = await lease_of(queue)
    half = TokenLogprob(b"\xe4\xbb", -0.5, ((b"a", -1.0), (b"\xff", -2.25)))
    whole = TokenLogprob("价".encode(), -0.25)
    others = (Piece(1, "b", (half, whole)), Piece(3, "d"))
    key = (lease.task_id, lease.fence)
    assert await streams.append([StreamWrite(*key, "", 2, (), others)]) == set()
    assert await streams.append([StreamWrite(*key, "a", 1, (whole,))]) == set()
    usage = Usage(5, 3)
    choices = (Choice("b", "length", (half, whole)), Choice("", "stop"))
    outcome = Outcome(*key, "a", "stop", usage, logprobs=(whole,), others=choices)
    await queue.finish([outcome])
    first, second, end = await everything(streams, "a")
    assert first.pieces == (Piece(0, ""), *others)
    assert (second.pieces, second.tokens) == ((Piece(0, "a", (whole,)),), 1)
    assert end.fields == {"finish_reasons": ["stop", "length", "stop"], "usage": usage.to_dict()}
    record = await queue.get(TaskId("a"))
    assert record is not None
    assert (record.text, record.finish_reason, record.logprobs) == ("a", "stop", (whole,))
    assert record.others == choices
