"""Answers that are kept or shared: leaders, followers, and copies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from forebay.core.events import Choice, TokenLogprob, Usage
from forebay.core.lifecycle import State
from forebay.core.request import Priority, TaskId
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import (
    STREAM_START,
    Enqueued,
    Idempotency,
    Outcome,
    Reuse,
    SameAnswer,
    StreamEntry,
    StreamId,
    StreamKind,
    StreamWrite,
    TaskError,
)
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.integrity import check_integrity
from tests.queue.making import PLENTY, answer, held, names, run_out, task

SAME = SameAnswer("digest")


def equal(name: str, **more: Any) -> Any:
    return task(name, same=more.pop("same", SAME), **more)


async def state_of(queue: RedisQueue, name: str) -> State:
    record = await queue.get(TaskId(name))
    assert record is not None
    return record.state


async def text_of(queue: RedisQueue, name: str) -> str | None:
    record = await queue.get(TaskId(name))
    assert record is not None
    return record.text


async def read(
    streams: RedisTokenStreams, name: str, after: StreamId = STREAM_START
) -> list[StreamEntry]:
    async with streams.subscribe(TaskId(name), after) as entries:
        return [entry async for entry in entries]


def told(entries: list[StreamEntry]) -> str:
    text = ""
    for entry in entries:
        text = "" if entry.kind is StreamKind.RESTART else text + entry.text
    return text


async def next_of(entries: AsyncIterator[StreamEntry]) -> StreamEntry:
    return await asyncio.wait_for(anext(entries), 5)


async def answered(queue: RedisQueue, text: str = "42") -> None:
    [lease] = await queue.claim("w", 1, PLENTY)
    await queue.finish([answer(lease, text)])


# Answers that are kept.


async def test_a_kept_answer_ends_an_equal_task_at_once(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    await queue.enqueue(equal("first"))
    [lease] = await queue.claim("w", 1, PLENTY)
    others = (Choice("43", "length", ()),)
    logprobs = (TokenLogprob(b"42", -0.5),)
    whole = Outcome(
        lease.task_id, lease.fence, "42", usage=Usage(3, 2), logprobs=logprobs, others=others
    )
    await queue.finish([whole])
    enqueued = await queue.enqueue(equal("second"))
    assert enqueued == Enqueued(TaskId("second"), 0, None, True, Reuse.CACHED)
    record = await queue.get(TaskId("second"))
    assert record is not None
    assert (record.state, record.text, record.others) == (State.FINISHED, "42", others)
    assert (record.usage, record.logprobs) == (Usage(3, 2), logprobs)
    assert record.reuse is Reuse.CACHED
    assert (await queue.depth()).waiting == 0
    delta, done = await read(streams, "second")
    assert (delta.kind, delta.text, delta.logprobs) == (StreamKind.DELTA, "42", logprobs)
    assert [piece.text for piece in delta.pieces] == ["42", "43"]
    assert (done.kind, done.fields["finish_reasons"]) == (StreamKind.DONE, ["stop", "length"])
    assert await read(streams, "second", delta.stream_id) == [done]
    assert await read(streams, "second", done.stream_id) == []


@pytest.mark.parametrize(
    "other",
    [
        SameAnswer("another"),
        SameAnswer("digest", read=False),
        None,
    ],
)
async def test_what_is_not_equal_or_does_not_want_it_runs_itself(
    queue: RedisQueue, other: SameAnswer | None
) -> None:
    await queue.enqueue(equal("first"))
    await answered(queue)
    assert (await queue.enqueue(task("second", same=other))).reuse is None
    assert await state_of(queue, "second") is State.QUEUED


async def test_an_answer_that_must_not_be_kept_serves_nobody(queue: RedisQueue) -> None:
    await queue.enqueue(equal("first", same=SameAnswer("digest", read=False, keep=False)))
    assert (await queue.enqueue(equal("meanwhile"))).reuse is None
    await queue.cancel(TaskId("meanwhile"))
    await answered(queue)
    assert (await queue.enqueue(equal("after"))).reuse is None


async def test_who_keeps_nothing_follows_nobody_for_it_could_not_lead(queue: RedisQueue) -> None:
    await queue.enqueue(equal("first"))
    await queue.enqueue(equal("own", same=SameAnswer("digest", keep=False)))
    await queue.cancel(TaskId("first"))
    assert (await queue.enqueue(equal("second"))).reuse is None
    assert (await queue.enqueue(equal("third"))).reuse is Reuse.JOINED
    for _ in range(2):
        await answered(queue)
    assert await state_of(queue, "own") is await state_of(queue, "third") is State.FINISHED


async def test_an_answer_is_kept_from_its_end_on_however_often_it_serves(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(equal("first"))
    await answered(queue)
    pointer = keys.prefix + KEY_NAMES["same"] + "digest"
    await redis.pexpire(pointer, 1000)
    assert (await queue.enqueue(equal("second"))).reuse is Reuse.CACHED
    assert 0 < await redis.pttl(pointer) <= 1000
    await redis.delete(pointer)
    assert (await queue.enqueue(equal("third"))).reuse is None


async def test_the_newer_answer_is_the_one_that_is_kept(queue: RedisQueue) -> None:
    await queue.enqueue(equal("first"))
    await answered(queue, "old")
    await queue.enqueue(equal("anew", same=SameAnswer("digest", read=False)))
    assert (await queue.enqueue(equal("meanwhile"))).reuse is Reuse.CACHED
    await answered(queue, "new")
    await queue.enqueue(equal("after"))
    assert await text_of(queue, "after") == "new"


async def test_a_failure_is_not_kept(queue: RedisQueue) -> None:
    await queue.enqueue(equal("first"))
    [lease] = await queue.claim("w", 1, PLENTY)
    error = TaskError("inference_failed", "why")
    await queue.finish([Outcome(lease.task_id, lease.fence, error=error)])
    assert (await queue.enqueue(equal("second"))).reuse is None


@pytest.mark.parametrize("limits", [QueueLimits(answer_cache_s=0)])
async def test_without_a_cache_equal_tasks_still_share_a_run(
    queue: RedisQueue, limits: QueueLimits
) -> None:
    await queue.enqueue(equal("first"))
    assert (await queue.enqueue(equal("second"))).reuse is Reuse.JOINED
    await answered(queue)
    assert await text_of(queue, "second") == "42"
    assert (await queue.enqueue(equal("third"))).reuse is None


@pytest.mark.parametrize("limits", [QueueLimits(max_answer_bytes=6)])
async def test_an_answer_over_the_bound_is_a_failure_that_says_so(
    queue: RedisQueue, limits: QueueLimits
) -> None:
    await queue.enqueue(task("fits"))
    await queue.enqueue(task("too-large"))
    leases = await queue.claim("w", 2, PLENTY)
    await queue.finish([answer(leases[0], "价格"), answer(leases[1], "价格!")])
    assert await text_of(queue, "fits") == "价格"
    record = await queue.get(TaskId("too-large"))
    assert record is not None
    assert record.state is State.FAILED
    assert record.error == TaskError("answer_too_large", "The answer has 7 bytes, the bound is 6.")


async def test_log_probabilities_over_their_bound_are_a_failure_that_says_so(
    queue: RedisQueue,
) -> None:
    await queue.enqueue(task("fits"))
    await queue.enqueue(task("too-large"))
    asked = (TokenLogprob(b"x" * 8, -0.5, ((b"y" * 8, -0.25),) * 20),) * 3120  # what a client may
    long = (TokenLogprob(b"x" * 8192, -0.5),) * 1025
    for lease, logprobs in zip(await queue.claim("w", 2, PLENTY), (asked, long), strict=True):
        await queue.finish([Outcome(*held(lease), "4", logprobs=logprobs)])
    fits, too_large = await queue.get(TaskId("fits")), await queue.get(TaskId("too-large"))
    assert fits is not None
    assert fits.logprobs == asked
    assert too_large is not None
    assert too_large.state is State.FAILED
    assert too_large.error is not None
    assert too_large.error.code == "answer_too_large"
    assert "log-probabilities" in too_large.error.message


# Runs that are shared.


async def test_equal_tasks_share_one_run_and_wait_in_no_line(queue: RedisQueue) -> None:
    await queue.enqueue(equal("leader"))
    joined = await queue.enqueue(equal("follower"))
    assert (joined.reuse, joined.fresh, joined.position) == (Reuse.JOINED, True, 0)
    assert (await queue.depth()).waiting == 1
    leases = await queue.claim("w", 10, PLENTY)
    assert names(leases) == ["leader"]
    record = await queue.get(TaskId("follower"))
    assert record is not None
    assert (record.state, record.position, record.reuse) == (State.QUEUED, 0, Reuse.JOINED)
    await queue.finish([answer(leases[0])])
    assert await text_of(queue, "follower") == "42"
    assert await queue.claim("w", 10, PLENTY) == []


async def test_a_follower_waits_where_its_leader_waits(queue: RedisQueue) -> None:
    for at in range(3):
        await queue.enqueue(task(f"t{at}"))
    await queue.enqueue(equal("leader"))
    assert (await queue.enqueue(equal("follower"))).position == 3


async def test_more_than_sixty_four_followers_begin_a_second_run(queue: RedisQueue) -> None:
    all_names = [f"t{at}" for at in range(130)]
    reuses = [(await queue.enqueue(equal(name))).reuse for name in all_names]
    assert reuses == [None, *[Reuse.JOINED] * 64, None, *[Reuse.JOINED] * 64]
    leases = await queue.claim("w", 10, PLENTY)
    assert names(leases) == ["t0", "t65"]
    await queue.finish([answer(lease) for lease in leases])
    assert {await text_of(queue, name) for name in all_names} == {"42"}


async def test_an_urgent_task_does_not_wait_for_one_that_is_less_so(queue: RedisQueue) -> None:
    await queue.enqueue(equal("batch", priority=Priority.BATCH))
    assert (await queue.enqueue(equal("urgent", priority=Priority.VIP))).reuse is None
    assert (await queue.enqueue(equal("normal"))).reuse is Reuse.JOINED
    [lease] = await queue.claim("w", 1, PLENTY)
    assert lease.task_id == "urgent"
    assert (await queue.enqueue(equal("most", priority=Priority(0)))).reuse is Reuse.JOINED
    await queue.finish([answer(lease)])
    assert await text_of(queue, "normal") == "42"
    assert await state_of(queue, "batch") is State.QUEUED


async def test_a_delayed_task_neither_leads_nor_follows(queue: RedisQueue) -> None:
    await queue.enqueue(equal("later", delay_s=60))
    assert (await queue.enqueue(equal("leader"))).reuse is None
    assert (await queue.enqueue(equal("later-too", delay_s=60))).reuse is None


@pytest.mark.parametrize("error", ["inference_failed", "upstream_failed"])
async def test_a_failure_is_everyones(
    queue: RedisQueue, streams: RedisTokenStreams, error: str
) -> None:
    await queue.enqueue(equal("leader"))
    await queue.enqueue(equal("follower"))
    [lease] = await queue.claim("w", 1, PLENTY)
    await queue.finish([Outcome(lease.task_id, lease.fence, error=TaskError(error, "why"))])
    record = await queue.get(TaskId("follower"))
    assert record is not None
    assert (record.state, record.error) == (State.FAILED, TaskError(error, "why"))
    [entry] = await read(streams, "follower")
    assert (entry.kind, entry.fields["code"]) == (StreamKind.ERROR, error)


async def test_a_dead_leader_takes_its_followers_along(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(equal("leader"))
    await queue.enqueue(equal("follower"))
    for _ in range(3):
        assert names(await queue.claim("w", 1, PLENTY)) == ["leader"]
        await run_out(redis, keys, "leader")
        await queue.depth()
    assert await state_of(queue, "follower") is State.DEAD
    assert (await queue.depth()).dead == 2


async def test_a_killed_worker_costs_the_followers_nothing(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    await queue.enqueue(equal("leader"))
    await queue.enqueue(equal("follower"))
    [lease] = await queue.claim("w", 1, PLENTY)
    async with streams.subscribe(TaskId("follower")) as entries:
        await streams.append([StreamWrite(*held(lease), "4", 1)])
        assert (await next_of(entries)).text == "4"
        await queue.reap("w")
        [again] = await queue.claim("w2", 1, PLENTY)
        assert (await next_of(entries)).kind is StreamKind.RESTART
        await streams.append([StreamWrite(*held(again), "42", 2)])
        assert (await next_of(entries)).text == "42"
        await queue.finish([answer(again)])
        assert (await next_of(entries)).kind is StreamKind.DONE
    assert await text_of(queue, "follower") == "42"


async def test_a_cancelled_leader_hands_over_and_readers_go_on(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    for name in ("leader", "heir", "third"):
        await queue.enqueue(equal(name))
    [lease] = await queue.claim("w", 1, PLENTY)
    async with (
        streams.subscribe(TaskId("heir")) as of_heir,
        streams.subscribe(TaskId("third")) as of_third,
    ):
        await streams.append([StreamWrite(*held(lease), "4", 1)])
        first = [await next_of(of_heir), await next_of(of_third)]
        assert [entry.text for entry in first] == ["4", "4"]
        await queue.cancel(TaskId("leader"))
        error = TaskError("cancelled", "The task was cancelled.")
        await queue.finish([Outcome(*held(lease), error=error)])
        [next_lease] = await queue.claim("w", 5, PLENTY)
        assert next_lease.task_id == "heir"
        for entries in (of_heir, of_third):
            assert (await next_of(entries)).kind is StreamKind.RESTART
        await streams.append([StreamWrite(*held(next_lease), "42", 2)])
        await queue.finish([answer(next_lease)])
        for entries in (of_heir, of_third):
            assert [(await next_of(entries)).text for _ in range(2)] == ["42", ""]
            with pytest.raises(StopAsyncIteration):
                await next_of(entries)
    assert await state_of(queue, "leader") is State.CANCELLED
    for name in ("heir", "third"):
        assert await text_of(queue, name) == "42"
        # Who was cut off after the first token, and comes back with its place.
        rest = await read(streams, name, first[0].stream_id)
        assert [entry.kind for entry in rest] == ["restart", "delta", "done"]
    heir, third = await queue.get(TaskId("heir")), await queue.get(TaskId("third"))
    assert heir is not None
    assert third is not None
    assert (heir.reuse, third.reuse) == (None, Reuse.JOINED)


async def test_a_slow_reader_hears_the_answer_and_not_its_first_leaders_end(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    for name in ("leader", "heir", "third"):
        await queue.enqueue(equal(name))
    [lease] = await queue.claim("w", 1, PLENTY)
    async with (
        streams.subscribe(TaskId("heir")) as of_heir,
        streams.subscribe(TaskId("third")) as of_third,
    ):
        await streams.append([StreamWrite(*held(lease), "4", 1)])
        for entries in (of_heir, of_third):
            assert (await next_of(entries)).text == "4"
        cancel = TaskError("cancelled", "The task was cancelled.")
        await queue.finish([Outcome(*held(lease), error=cancel)])
        [next_lease] = await queue.claim("w", 5, PLENTY)
        await streams.append([StreamWrite(*held(next_lease), "42", 2)])
        await queue.finish([answer(next_lease)])
        # Only now it reads on.
        for entries in (of_heir, of_third):
            heard = [await next_of(entries) for _ in range(3)]
            assert [entry.kind for entry in heard] == ["restart", "delta", "done"]


async def test_a_leader_cancelled_in_its_line_hands_its_turn_over(queue: RedisQueue) -> None:
    await queue.enqueue(equal("leader"))
    await queue.enqueue(equal("heir"))
    await queue.enqueue(task("other"))
    await queue.cancel(TaskId("leader"))
    assert (await queue.depth()).waiting == 2
    assert names(await queue.claim("w", 5, PLENTY)) == ["heir", "other"]
    assert (await queue.enqueue(equal("late"))).reuse is Reuse.JOINED


async def test_nobody_joins_a_leader_that_is_about_to_stop(queue: RedisQueue) -> None:
    await queue.enqueue(equal("leader"))
    await queue.claim("w", 1, PLENTY)
    await queue.cancel(TaskId("leader"))
    assert (await queue.enqueue(equal("second"))).reuse is None


async def test_an_expired_leader_hands_over(queue: RedisQueue) -> None:
    await queue.enqueue(equal("leader", deadline_s=0.02))
    await queue.enqueue(equal("heir"))
    await asyncio.sleep(0.05)
    assert (await queue.depth()).waiting == 1
    assert await state_of(queue, "leader") is State.EXPIRED
    assert names(await queue.claim("w", 5, PLENTY)) == ["heir"]


async def test_a_cancelled_follower_leaves_its_leader_alone(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    await queue.enqueue(equal("leader"))
    await queue.enqueue(equal("follower"))
    async with streams.subscribe(TaskId("follower")) as entries:
        [lease] = await queue.claim("w", 1, PLENTY)
        await streams.append([StreamWrite(*held(lease), "4", 1)])
        first = await next_of(entries)
        assert await queue.cancel(TaskId("follower"))
        assert (await next_of(entries)).kind is StreamKind.CANCELLED
    assert (await queue.heartbeat("w", [held(lease)])).cancelled == set()
    await queue.finish([answer(lease)])
    assert await text_of(queue, "leader") == "42"
    assert await state_of(queue, "follower") is State.CANCELLED
    [end] = await read(streams, "follower", first.stream_id)
    assert end.kind is StreamKind.CANCELLED
    assert await read(streams, "follower", end.stream_id) == []


async def test_an_expired_follower_leaves_its_leader_alone(queue: RedisQueue) -> None:
    await queue.enqueue(equal("leader"))
    await queue.enqueue(equal("follower", deadline_s=0.02))
    await asyncio.sleep(0.05)
    depth = await queue.depth()
    assert (depth.waiting, depth.waiting_tokens) == (1, 10)
    assert await state_of(queue, "follower") is State.EXPIRED


async def test_a_reader_that_comes_in_the_middle_gets_all_and_its_places_last(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    await queue.enqueue(equal("leader"))
    [lease] = await queue.claim("w", 1, PLENTY)
    await streams.append([StreamWrite(*held(lease), "4", 1)])
    await queue.enqueue(equal("follower"))
    async with streams.subscribe(TaskId("follower")) as entries:
        first = await next_of(entries)
        await streams.append([StreamWrite(*held(lease), "2", 1)])
        second = await next_of(entries)
        await queue.finish([answer(lease)])
        done = await next_of(entries)
    assert [first.text, second.text, done.kind] == ["4", "2", "done"]
    whole = await read(streams, "follower")
    assert whole == [first, second, done]
    for at, entry in enumerate(whole, start=1):
        assert await read(streams, "follower", entry.stream_id) == whole[at:]


async def test_a_reader_that_comes_after_the_leaders_stream_is_gone_gets_the_answer_whole(
    queue: RedisQueue, streams: RedisTokenStreams, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(equal("leader"))
    await queue.enqueue(equal("follower"))
    await answered(queue)
    await redis.delete(keys.stream(TaskId("leader")))
    entries = await read(streams, "follower")
    assert told(entries) == "42"
    assert entries[-1].kind is StreamKind.DONE


async def test_an_idempotency_key_names_the_follower_again(queue: RedisQueue) -> None:
    key = Idempotency("key", "asked")
    await queue.enqueue(equal("leader"))
    joined = await queue.enqueue(equal("follower", idempotency=key))
    assert (joined.reuse, joined.fresh) == (Reuse.JOINED, True)
    again = await queue.enqueue(equal("repeat", idempotency=key))
    assert (again.task_id, again.reuse, again.fresh) == ("follower", Reuse.JOINED, False)
    await answered(queue)
    hit = await queue.enqueue(equal("hit", idempotency=Idempotency("other", "asked")))
    repeat = await queue.enqueue(equal("repeat", idempotency=Idempotency("other", "asked")))
    assert (hit.reuse, repeat.task_id, repeat.fresh) == (Reuse.CACHED, "hit", False)
    assert await queue.get(TaskId("repeat")) is None


async def test_enqueueing_a_follower_twice_is_enqueueing_it_once(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(equal("leader"))
    assert await queue.enqueue(equal("follower")) == await queue.enqueue(equal("follower"))
    assert await redis.zcard(keys.prefix + KEY_NAMES["followers"] + "leader") == 1


# What someone deletes by hand.


async def delete(redis: Redis, keys: Keys, *names: str) -> None:
    await redis.delete(*(keys.task(TaskId(name)) for name in names))


@pytest.mark.parametrize("where", ["in its line", "in a worker's hands", "among the suspects"])
async def test_a_deleted_leader_hands_over_and_readers_are_told(
    queue: RedisQueue, streams: RedisTokenStreams, redis: Redis, keys: Keys, where: str
) -> None:
    for name in ("leader", "heir", "third"):
        await queue.enqueue(equal(name))
    if where != "in its line":
        await queue.claim("w", 1, PLENTY)
    if where == "among the suspects":
        await queue.reap("w")
    async with (
        streams.subscribe(TaskId("leader")) as of_leader,
        streams.subscribe(TaskId("heir")) as of_heir,
        streams.subscribe(TaskId("third")) as of_third,
    ):
        await delete(redis, keys, "leader")
        if where == "in a worker's hands":
            await run_out(redis, keys, "leader")
        leases = [*await queue.claim("w", 5, PLENTY), *await queue.claim("w", 5, PLENTY)]
        assert names(leases) == ["heir"]
        gone = await next_of(of_leader)
        assert (gone.kind, gone.fields["code"]) == (StreamKind.ERROR, "task_not_found")
        assert await check_integrity(redis, keys) == []
        assert (await queue.enqueue(equal("late"))).reuse is Reuse.JOINED
        await streams.append([StreamWrite(*held(leases[0]), "42", 1)])
        await queue.finish([answer(leases[0])])
        for entries in (of_heir, of_third):
            heard = [await next_of(entries) for _ in range(3)]
            assert [entry.kind for entry in heard] == ["restart", "delta", "done"]
    for name in ("heir", "third", "late"):
        assert await text_of(queue, name) == "42"


@pytest.mark.parametrize("deleted", ["first", "second", "third"])
async def test_a_deleted_follower_does_not_hold_up_the_others(
    queue: RedisQueue, redis: Redis, keys: Keys, deleted: str
) -> None:
    followers = ["first", "second", "third"]
    for name in ("leader", *followers):
        await queue.enqueue(equal(name, deadline_s=60))
    await delete(redis, keys, deleted)
    await answered(queue)
    for name in followers:
        if name != deleted:
            assert await text_of(queue, name) == "42"
    assert await check_integrity(redis, keys) == []


@pytest.mark.parametrize("deleted", ["first", "second", "third"])
async def test_a_deleted_follower_does_not_hold_up_a_change_of_leaders(
    queue: RedisQueue, redis: Redis, keys: Keys, deleted: str
) -> None:
    followers = ["first", "second", "third"]
    for name in ("leader", *followers):
        await queue.enqueue(equal(name))
    await delete(redis, keys, deleted)
    await queue.cancel(TaskId("leader"))
    assert await check_integrity(redis, keys) == []
    await answered(queue)
    for name in followers:
        if name != deleted:
            assert await text_of(queue, name) == "42"
