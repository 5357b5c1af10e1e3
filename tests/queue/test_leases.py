from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from forebay.core.errors import QueueUnavailableError
from forebay.core.events import Usage
from forebay.core.lifecycle import State
from forebay.core.request import Priority, TaskId
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Fence, Outcome, TaskError, TaskRecord
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from tests.queue.making import PLENTY, answer, held, names, run_out, task


async def record_of(queue: RedisQueue, name: str) -> TaskRecord:
    record = await queue.get(TaskId(name))
    assert record is not None
    return record


async def test_an_answer_is_kept_with_its_usage(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    usage = Usage(prompt_tokens=70, completion_tokens=3)
    done = Outcome(lease.task_id, lease.fence, "价格 42", "length", usage)
    assert await queue.finish([done]) == ["a"]
    record = await record_of(queue, "a")
    assert (record.state, record.text, record.finish_reason) == (
        State.FINISHED,
        "价格 42",
        "length",
    )
    assert record.usage == usage
    assert record.finished_s is not None


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("inference_failed", State.FAILED),
        ("cancelled", State.CANCELLED),
        ("expired", State.EXPIRED),
    ],
)
async def test_an_error_ends_a_task_in_its_own_state(
    queue: RedisQueue, code: str, state: State
) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    error = TaskError(code, "why")
    assert await queue.finish([Outcome(lease.task_id, lease.fence, error=error)]) == ["a"]
    record = await record_of(queue, "a")
    assert (record.state, record.error) == (state, error)


async def test_a_stale_fence_finishes_nothing(queue: RedisQueue, redis: Redis, keys: Keys) -> None:
    await queue.enqueue(task("a"))
    (old,) = await queue.claim("slow", 1, PLENTY)
    await run_out(redis, keys, "a")
    (new,) = await queue.claim("quick", 1, PLENTY)
    assert new.fence > old.fence
    assert await queue.finish([answer(old, "stale")]) == []
    assert await queue.finish([answer(new, "fresh")]) == ["a"]
    assert await queue.finish([answer(old, "stale")]) == []
    assert (await record_of(queue, "a")).text == "fresh"


async def test_a_stale_fence_does_not_finish_a_task_that_waits_again(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("a"))
    (old,) = await queue.claim("slow", 1, PLENTY)
    await run_out(redis, keys, "a")
    await queue.depth()
    assert await queue.finish([answer(old)]) == []
    assert await queue.release([held(old)]) == []
    assert (await record_of(queue, "a")).state is State.QUEUED


async def test_finishing_twice_is_one_result(queue: RedisQueue) -> None:
    """The reply to the first may have been lost, so the second is told that it is stored."""
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    assert await queue.finish([answer(lease, "one")]) == ["a"]
    assert await queue.finish([answer(lease, "two")]) == ["a"]
    assert (await record_of(queue, "a")).text == "one"


async def test_a_heartbeat_keeps_leases_and_names_those_that_are_lost(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    for name in "ab":
        await queue.enqueue(task(name))
    a, b = await queue.claim("w", 2, PLENTY)
    await run_out(redis, keys, "a", "b")
    # Not yet taken back by anyone: renewing in time is still possible.
    reply = await queue.heartbeat("w", [held(a)])
    assert reply.lost == set()
    reply = await queue.heartbeat("w", [held(a), held(b), (TaskId("nobody"), Fence(1))])
    assert reply.lost == {"b", "nobody"}


@pytest.mark.parametrize("limits", [QueueLimits(lease_s=0.05)])
async def test_a_lease_runs_out_by_the_clock(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    await queue.claim("gone", 1, PLENTY)
    assert await queue.claim("other", 1, PLENTY) == []
    await asyncio.sleep(0.1)
    (lease,) = await queue.claim("other", 1, PLENTY)
    assert (lease.task_id, lease.deliveries) == ("a", 2)


async def test_a_batch_that_died_is_redelivered_one_by_one(queue: RedisQueue) -> None:
    for i in range(3):
        await queue.enqueue(task(f"t{i}"))
    await queue.claim("w", 3, PLENTY)
    await queue.enqueue(task("fresh"))
    assert sorted(await queue.reap("w")) == ["t0", "t1", "t2"]
    for i in range(3):
        (alone,) = await queue.claim("w", 10, PLENTY)
        assert (alone.task_id, alone.deliveries) == (f"t{i}", 2)
        assert await queue.claim("w", 10, PLENTY) == []
        await queue.finish([answer(alone)])
    assert names(await queue.claim("w", 10, PLENTY)) == ["fresh"]


async def test_a_busy_worker_runs_empty_for_a_suspect(queue: RedisQueue) -> None:
    for name in ("poison", "running", "more"):
        await queue.enqueue(task(name))
    await queue.claim("dies", 1, PLENTY)
    (running,) = await queue.claim("w", 1, PLENTY)
    await queue.reap("dies")
    assert await queue.claim("w", 10, PLENTY) == []
    await queue.finish([answer(running)])
    assert names(await queue.claim("w", 10, PLENTY)) == ["poison"]


async def test_other_workers_go_on_while_one_runs_a_suspect(queue: RedisQueue) -> None:
    for name in ("poison", "other", "running", "more"):
        await queue.enqueue(task(name))
    await queue.claim("dies", 2, PLENTY)
    await queue.claim("busy", 1, PLENTY)
    await queue.reap("dies")
    assert names(await queue.claim("idle", 10, PLENTY)) == ["poison"]
    assert names(await queue.claim("busy", 10, PLENTY)) == ["more"]


async def test_a_task_that_kills_every_worker_is_a_dead_letter(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("poison"))
    for delivery in (1, 2, 3):
        (lease,) = await queue.claim("w", 1, PLENTY)
        assert lease.deliveries == delivery
        await queue.reap("w")
    assert await queue.claim("w", 1, PLENTY) == []
    record = await record_of(queue, "poison")
    assert record.state is State.DEAD
    assert record.error is not None
    assert record.error.code == "dead_letter"
    assert (await queue.depth()).dead == 1
    assert await redis.ttl(keys.body(TaskId("poison"))) > 3600


async def test_reaping_takes_only_the_dead_workers_leases(queue: RedisQueue) -> None:
    for name in "ab":
        await queue.enqueue(task(name))
    await queue.claim("dead", 1, PLENTY)
    (b,) = await queue.claim("alive", 1, PLENTY)
    assert await queue.reap("dead") == ["a"]
    assert await queue.reap("dead") == []
    assert (await queue.heartbeat("alive", [held(b)])).lost == set()


async def test_a_delivery_that_came_to_nothing_counts_and_is_the_last_words_of_a_dead_letter(
    queue: RedisQueue,
) -> None:
    for name in ("poison", "fresh"):
        await queue.enqueue(task(name))
    for delivery in (1, 2, 3):
        (lease,) = await queue.claim("w", 1, PLENTY)
        assert (lease.task_id, lease.deliveries) == ("poison", delivery)
        assert await queue.redeliver([held(lease)], f"it fell ill {delivery} times") == ["poison"]
        assert await queue.redeliver([held(lease)], "a repetition") == []
    record = await record_of(queue, "poison")
    assert record.state is State.DEAD
    assert record.error is not None
    assert record.error.message.endswith("The last time: it fell ill 3 times.")
    assert names(await queue.claim("w", 9, PLENTY)) == ["fresh"]


async def test_a_worker_that_cannot_answer_keeps_its_leases_and_is_not_counted(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    assert await queue.workers() == 1
    await run_out(redis, keys, "a")
    reply = await queue.heartbeat("w", [held(lease)], serving=False)
    assert reply.lost == set()
    assert await queue.workers() == 0
    assert await queue.claim("other", 1, PLENTY) == []
    await queue.heartbeat("w", [held(lease)])
    assert await queue.workers() == 2


async def test_released_tasks_go_back_to_their_places_uncounted(queue: RedisQueue) -> None:
    for name in "abc":
        await queue.enqueue(task(name))
    leases = await queue.claim("w", 2, PLENTY)
    assert await queue.release([held(lease) for lease in reversed(leases)]) == ["b", "a"]
    again = await queue.claim("w", 3, PLENTY)
    assert names(again) == ["a", "b", "c"]
    assert [lease.deliveries for lease in again] == [1, 1, 1]


async def test_a_released_suspect_still_runs_alone(queue: RedisQueue) -> None:
    for name in "ab":
        await queue.enqueue(task(name))
    await queue.claim("w", 1, PLENTY)
    await queue.reap("w")
    (alone,) = await queue.claim("w", 2, PLENTY)
    await queue.release([held(alone)])
    assert names(await queue.claim("w", 2, PLENTY)) == ["a"]


async def test_a_waiting_task_is_cancelled_at_once(queue: RedisQueue) -> None:
    await queue.enqueue(task("a", priority=Priority.BATCH))
    assert await queue.cancel(TaskId("a")) is True
    assert (await record_of(queue, "a")).state is State.CANCELLED
    assert await queue.claim("w", 1, PLENTY) == []
    assert (await queue.depth()).waiting_tokens == 0
    assert await queue.cancel(TaskId("a")) is False


async def test_a_leased_task_is_cancelled_through_its_worker(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    assert await queue.cancel(TaskId("a")) is True
    assert (await record_of(queue, "a")).state is State.LEASED
    assert (await queue.heartbeat("w", [held(lease)])).cancelled == {"a"}
    error = TaskError("cancelled", "by its client")
    await queue.finish([Outcome(lease.task_id, lease.fence, error=error)])
    assert (await record_of(queue, "a")).state is State.CANCELLED
    assert await queue.cancel(TaskId("a")) is False


@pytest.mark.parametrize("way", ["reap", "release"])
async def test_a_cancelled_task_is_not_delivered_again(queue: RedisQueue, way: str) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    await queue.cancel(TaskId("a"))
    await (queue.reap("w") if way == "reap" else queue.release([held(lease)]))
    assert (await record_of(queue, "a")).state is State.CANCELLED
    assert await queue.claim("w", 1, PLENTY) == []


async def test_leases_of_a_claim_whose_reply_was_lost_come_with_the_next(
    queue: RedisQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        await queue.enqueue(task(name))
    fcall = queue._library._fcall

    async def lose_the_reply(*args: object) -> object:
        await fcall(*args)  # type: ignore[arg-type]
        raise RedisConnectionError("cut")

    monkeypatch.setattr(queue._library, "_fcall", lose_the_reply)
    with pytest.raises(QueueUnavailableError):
        await queue.claim("w", 2, PLENTY)
    monkeypatch.undo()
    again = await queue.claim("w", 2, PLENTY)
    assert sorted(names(again)) == ["a", "b"]
    assert [lease.deliveries for lease in again] == [1, 1]
    assert names(await queue.claim("w", 2, PLENTY)) == ["c"]


async def test_a_request_that_cannot_be_read_fails_and_spares_its_neighbours(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    for name in "ab":
        await queue.enqueue(task(name))
    await redis.set(keys.body(TaskId("a")), "{}")
    assert names(await queue.claim("w", 2, PLENTY)) == ["b"]
    assert (await record_of(queue, "a")).state is State.FAILED


async def test_neighbours_of_an_unreadable_request_are_not_lost_when_failing_it_cannot_be_stored(
    queue: RedisQueue, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        await queue.enqueue(task(name))
    await redis.set(keys.body(TaskId("a")), "{}")

    async def cut(*_: object) -> object:
        raise RedisConnectionError("cut")

    monkeypatch.setattr(queue._library, "finish", cut)
    with pytest.raises(QueueUnavailableError):
        await queue.claim("w", 2, PLENTY)
    monkeypatch.undo()
    assert names(await queue.claim("w", 2, PLENTY)) == ["b"]
    assert (await record_of(queue, "a")).state is State.FAILED


async def test_a_leased_task_deleted_by_hand_leaves_its_worker_idle(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("gone"))
    await queue.claim("w", 1, PLENTY)
    await redis.delete(keys.task(TaskId("gone")))
    await queue.enqueue(task("large", cost=PLENTY + 1))
    assert names(await queue.claim("w", 1, PLENTY)) == ["large"]
    assert (await queue.depth()).leased == 1


@pytest.mark.parametrize("limits", [QueueLimits(result_ttl_s=0.05)])
async def test_results_expire(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    await queue.finish([answer(lease)])
    await asyncio.sleep(0.1)
    assert await queue.get(TaskId("a")) is None


async def test_the_library_is_loaded_again_when_the_server_lost_it(
    queue: RedisQueue, redis: Redis
) -> None:
    await redis.function_flush()
    await queue.enqueue(task("a"))
    assert names(await queue.claim("w", 1, PLENTY)) == ["a"]


async def test_a_lease_tells_the_tasks_age_and_how_long_it_waited_for_this_lease(
    queue: RedisQueue,
) -> None:
    await queue.enqueue(task("t"))
    await asyncio.sleep(0.3)
    [first] = await queue.claim("w", 1, PLENTY)
    assert 0.3 <= first.age_s == first.waited_s
    await asyncio.sleep(0.3)
    await queue.release([held(first)])
    [second] = await queue.claim("w", 1, PLENTY)
    assert second.age_s >= first.age_s + 0.3
    assert second.waited_s <= second.age_s - first.age_s - 0.3 + 0.01
