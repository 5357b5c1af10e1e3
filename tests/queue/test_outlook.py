"""When a waiting task may expect its turn, how far that was off, and how far a running one is."""

from __future__ import annotations

import time

import pytest
from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.core.request import Priority, TaskId
from forebay.queue.ports import StreamWrite, TaskRecord
from forebay.queue.redis_operator import RedisOperator
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.making import PLENTY, answer, held, task


async def measured(redis: Redis, keys: Keys, tokens_per_s: float) -> None:
    """Let the queue have measured a rate just now."""
    seconds, _ = await redis.time()
    sums = {"work": tokens_per_s * 1000, "busy": 10**6, "at": seconds * 1000}
    await redis.hset(keys.meta, mapping=sums)


async def record_of(queue: RedisQueue, name: str) -> TaskRecord:
    record = await queue.get(TaskId(name))
    assert record is not None
    return record


async def test_nobody_can_tell_before_anything_was_measured(queue: RedisQueue) -> None:
    assert (await queue.enqueue(task("a"))).eta_s is None
    assert (await record_of(queue, "a")).eta_s is None
    depth = await queue.depth()
    assert (depth.wait_s, depth.eta_error_s) == (None, None)


async def test_the_start_is_as_far_as_the_tokens_ahead_at_the_measured_rate(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await measured(redis, keys, 50)
    await queue.enqueue(task("running", cost=200))
    await queue.claim("w", 1, PLENTY)
    for i in range(4):
        await queue.enqueue(task(f"t{i}", cost=100))
    taken = await queue.enqueue(task("last", cost=100))
    assert taken.position == 4
    assert taken.eta_s == pytest.approx((4 * 100 + 200 / 2) / 50, rel=0.02)
    record = await record_of(queue, "t0")
    assert (record.position, record.eta_s) == (0, pytest.approx(2, rel=0.02))
    assert (await record_of(queue, "running")).eta_s is None


async def test_a_worker_that_found_too_little_takes_the_next_task_at_once(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await measured(redis, keys, 50)
    await queue.enqueue(task("running", cost=200))
    await queue.claim("w", 2, PLENTY)
    assert (await queue.enqueue(task("next"))).eta_s == 0
    assert (await queue.enqueue(task("another"))).eta_s != 0


async def test_a_delay_and_a_drained_queue_are_reckoned_with(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await measured(redis, keys, 50)
    delayed = await queue.enqueue(task("later", delay_s=60))
    assert delayed.eta_s == pytest.approx(60, abs=1)
    operator = RedisOperator(redis, keys.name)
    await operator.drain()
    assert (await queue.enqueue(task("a"))).eta_s is None


async def test_the_rate_is_that_of_answered_tasks_while_there_was_work(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("a", cost=1000))
    began = time.monotonic()
    (lease,) = await queue.claim("w", 1, PLENTY)
    while time.monotonic() - began < 0.05:
        await queue.heartbeat("w", [held(lease)])
    await queue.finish([answer(lease)])
    spent_s = time.monotonic() - began
    for i in range(3):
        taken = await queue.enqueue(task(f"t{i}", cost=1000))
    # two tasks of its own cost are ahead; the server's clock saw somewhat less than ours
    assert taken.eta_s is not None
    assert 2 * 0.04 < taken.eta_s <= 2 * spent_s + 0.01


async def test_what_was_told_is_compared_with_what_came(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await measured(redis, keys, 1)
    await queue.enqueue(task("running", cost=60))
    await queue.claim("w", 1, PLENTY)
    told = await queue.enqueue(task("a", cost=10))
    assert told.eta_s == pytest.approx(30, rel=0.01)
    await queue.claim("w", 1, PLENTY)  # it came much sooner
    depth = await queue.depth()
    # the first one had been told nothing: with the room it found, it was to start at once
    assert depth.wait_s is not None
    assert depth.wait_s < 10
    assert depth.eta_error_s is not None
    assert depth.eta_error_s > 10


async def test_the_place_of_a_task_counts_the_more_urgent(queue: RedisQueue) -> None:
    await queue.enqueue(task("later", priority=Priority.BATCH))
    for name in "ab":
        await queue.enqueue(task(name, priority=Priority.VIP))
    assert (await record_of(queue, "later")).position == 2


async def test_the_phases_of_a_task_are_kept_with_their_times(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    assert (await record_of(queue, "a")).state is State.LEASED
    phases = ((State.ENCODING, 2.0), (State.PREFILL, 1.5))
    await streams.append([StreamWrite(*held(lease), phases=phases)])
    record = await record_of(queue, "a")
    assert record.state is State.PREFILL
    assert record.encoding_s is not None
    assert record.prefill_s == pytest.approx(record.encoding_s + 0.5)
    assert record.decode_s is None
    await streams.append([StreamWrite(*held(lease), "text", 1, phases=((State.DECODE, 0.0),))])
    assert (await record_of(queue, "a")).state is State.DECODE
    assert (await queue.heartbeat("w", [held(lease)])).lost == set()
    await queue.finish([answer(lease)])
    record = await record_of(queue, "a")
    assert record.state is State.FINISHED
    assert record.decode_s is not None


async def test_a_new_delivery_has_come_to_no_phase(
    queue: RedisQueue, streams: RedisTokenStreams
) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    await streams.append([StreamWrite(*held(lease), phases=((State.PREFILL, 0.0),))])
    await queue.release([held(lease)])
    record = await record_of(queue, "a")
    assert (record.state, record.prefill_s) == (State.QUEUED, None)
