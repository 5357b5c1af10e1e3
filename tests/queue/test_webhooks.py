from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue import functions, schema
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Outcome, TaskError
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from forebay.queue.webhook_ports import WebhookAttempt, WebhookLease
from forebay.queue.webhooks import RedisWebhooks
from tests.queue.making import PLENTY, answer, task

URL = "https://Hooks.example/a?b=c"
DONE = WebhookAttempt("delivered", 204, took_s=0.25)
FAILED = WebhookAttempt("answered", 500, took_s=0.5)


@pytest.fixture
def hooks(redis: Redis, keys: Keys, queue: RedisQueue) -> RedisWebhooks:
    return RedisWebhooks(redis, keys.name)


async def finish(queue: RedisQueue, *names: str, url: str | None = URL, text: str = "42") -> None:
    for name in names:
        await queue.enqueue(task(name, webhook_url=url))
    for lease in await queue.claim("w", len(names), PLENTY):
        await queue.finish([answer(lease, text)])


async def claim(hooks: RedisWebhooks, limit: int = 10, **busy: int) -> list[WebhookLease]:
    named = {name.replace("_", "."): count for name, count in busy.items()}
    return list((await hooks.claim(limit, 4, named)).leases)


def names(leases: list[WebhookLease]) -> list[str]:
    return [lease.task.task_id for lease in leases]


async def make_due(redis: Redis, keys: Keys, host: str, *ids: str) -> None:
    """Let the time until the next attempt pass."""
    for one in ids:
        await redis.zadd(keys.prefix + KEY_NAMES["hooks"], {one: 1}, xx=True)
        await redis.zadd(keys.prefix + KEY_NAMES["hook_line"] + host, {one: 1}, xx=True)
    await redis.zadd(keys.prefix + KEY_NAMES["hook_hosts"], {host: 1}, xx=True)


async def test_a_tasks_end_puts_its_webhook_into_the_queue_with_the_task_as_it_ended(
    queue: RedisQueue, hooks: RedisWebhooks
) -> None:
    await queue.enqueue(task("a", webhook_url=URL))
    assert await claim(hooks) == []  # it has not ended
    await queue.finish([answer(lease, "答案") for lease in await queue.claim("w", 1, PLENTY)])
    (lease,) = await claim(hooks)
    assert lease.task == await queue.get(TaskId("a"))
    assert lease.task.text == "答案"
    assert (lease.url, lease.host, lease.attempt) == (URL, "hooks.example", 1)
    assert await claim(hooks) == []  # it is in hand
    assert await hooks.settle(lease, DONE, None)
    assert (await hooks.claim(10, 4, {})).waiting == 0


async def test_a_task_without_a_webhook_has_none(queue: RedisQueue, hooks: RedisWebhooks) -> None:
    await finish(queue, "a", url=None)
    claimed = await hooks.claim(10, 4, {})
    assert (claimed.leases, claimed.waiting) == ([], 0)


async def test_every_kind_of_end_is_told(redis: Redis, keys: Keys) -> None:
    queue = RedisQueue(redis, keys.name, QueueLimits(max_deliveries=1))
    await queue.start()
    hooks = RedisWebhooks(redis, keys.name)
    for name in ("failed", "dead"):
        await queue.enqueue(task(name, webhook_url=URL))
    failed, _ = await queue.claim("w", 2, PLENTY)
    await queue.finish(
        [Outcome(failed.task_id, failed.fence, error=TaskError("inference_failed", "x"))]
    )
    await queue.reap("w")
    await queue.enqueue(task("cancelled", webhook_url=URL))
    await queue.cancel(TaskId("cancelled"))
    await queue.enqueue(task("expired", webhook_url=URL, deadline_s=0.001))
    await asyncio.sleep(0.01)
    await queue.depth()
    leases = await claim(hooks)
    assert {lease.task.task_id: lease.task.state for lease in leases} == {
        name: State(name) for name in ("failed", "dead", "cancelled", "expired")
    }
    assert all(lease.task.error is not None for lease in leases)
    for lease in leases:
        await hooks.settle(lease, DONE, None)


async def test_a_webhook_outlives_its_tasks_result(redis: Redis, keys: Keys) -> None:
    queue = RedisQueue(redis, keys.name, QueueLimits(result_ttl_s=0.05))
    await queue.start()
    await finish(queue, "a", text="kept")
    await asyncio.sleep(0.1)
    assert await queue.get(TaskId("a")) is None
    (lease,) = await claim(RedisWebhooks(redis, keys.name))
    assert lease.task.text == "kept"


async def test_a_webhook_whose_dispatcher_went_away_is_leased_again(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await finish(queue, "a")
    gone, other = (RedisWebhooks(redis, keys.name, lease_s=0.05) for _ in range(2))
    (lost,) = await claim(gone)
    assert await claim(other) == []
    await asyncio.sleep(0.1)
    (again,) = await claim(other)
    assert again.attempt == 2
    # the first one has come back: its word counts for nothing now
    assert not await gone.settle(lost, DONE, None)
    assert await gone.webhook_log(TaskId("a")) == []
    assert await other.settle(again, DONE, None)
    assert not await other.settle(again, DONE, None)
    assert [one.attempt for one in await other.webhook_log(TaskId("a"))] == [2]


async def test_a_failed_attempt_is_followed_by_another_when_it_is_due(
    queue: RedisQueue, hooks: RedisWebhooks, redis: Redis, keys: Keys
) -> None:
    await finish(queue, "a")
    (lease,) = await claim(hooks)
    assert await hooks.settle(lease, FAILED, 3600)
    claimed = await hooks.claim(10, 4, {})
    assert (claimed.leases, claimed.waiting, claimed.due) == ([], 1, 0)
    await make_due(redis, keys, "hooks.example", "a")
    (again,) = await claim(hooks)
    assert (again.attempt, again.task) == (2, lease.task)
    await hooks.settle(again, DONE, None)
    first, second = await hooks.webhook_log(TaskId("a"))
    assert (first.outcome, first.status, first.took_s, first.again_s) == (
        "answered",
        500,
        0.5,
        3600,
    )
    assert (second.outcome, second.status, second.again_s) == ("delivered", 204, None)
    assert (first.attempt, second.attempt) == (1, 2)
    assert 0 <= second.at_s - first.at_s < 60
    assert 0 < await redis.pttl(keys.webhook_log(TaskId("a"))) <= 3600_000


async def test_a_receiver_at_its_bound_is_passed_over(
    queue: RedisQueue, hooks: RedisWebhooks
) -> None:
    await finish(queue, *(f"h{n}" for n in range(6)), url="https://hung.example/x")
    await finish(queue, "other", url="https://other.example/x")
    leases = await claim(hooks)
    assert names(leases) == ["h0", "h1", "h2", "h3", "other"]
    claimed = await hooks.claim(10, 4, {"hung.example": 4})
    assert (claimed.leases, claimed.due) == ([], 2)
    assert names(await claim(hooks, hung_example=3)) == ["h4"]
    assert names(await claim(hooks, limit=0)) == []


async def test_thousands_for_a_receiver_that_hangs_stand_in_nobodys_way(
    queue: RedisQueue, hooks: RedisWebhooks
) -> None:
    for begin in range(0, 600, 50):
        await finish(
            queue, *(f"h{n}" for n in range(begin, begin + 50)), url="https://hung.example"
        )
    await finish(queue, "late", url="https://other.example")
    assert names(await claim(hooks, hung_example=4)) == ["late"]


async def test_a_claim_sent_twice_leases_once(queue: RedisQueue, hooks: RedisWebhooks) -> None:
    await finish(queue, "a", "b")
    call = hooks._library.claim
    first = await call("nonce", 1, 4, 60_000, {})
    assert await call("nonce", 1, 4, 60_000, {}) == first
    assert [one[0] for one in (await call("other", 9, 4, 60_000, {}))[2]] == ["b"]


async def test_a_task_that_ends_again_is_told_anew(
    queue: RedisQueue, hooks: RedisWebhooks, redis: Redis, keys: Keys
) -> None:
    await finish(queue, "a", text="first")
    (lease,) = await claim(hooks)
    await redis.hset(keys.task(TaskId("a")), mapping={"state": "decode", "worker": "w", "fence": 9})
    await queue.finish([Outcome(TaskId("a"), 9, "second")])
    assert not await hooks.settle(lease, DONE, None)
    (again,) = await claim(hooks)
    assert (again.task.text, again.attempt) == ("second", 1)


@pytest.mark.parametrize("bound", ["WEBHOOKS_MOST", "WEBHOOKS_MOST_PER_HOST"])
async def test_webhooks_that_wait_are_bounded_and_what_is_given_up_is_told(
    redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(functions, bound, 3)
    functions.library_source.cache_clear()
    queue = RedisQueue(redis, keys.name)
    await queue.start()
    hooks = RedisWebhooks(redis, keys.name)
    functions.library_source.cache_clear()
    await finish(queue, "a", "b", "c")
    for lease in await claim(hooks):
        await hooks.settle(lease, FAILED, {"a": 10, "b": 1000, "c": 100}[lease.task.task_id])
    assert (await hooks.claim(0, 4, {})).crowded_out == 0
    await finish(queue, "d")
    claimed = await hooks.claim(0, 4, {})
    assert (claimed.waiting, claimed.crowded_out) == (3, 1)
    assert [one.outcome for one in await hooks.webhook_log(TaskId("b"))] == [
        "answered",
        "crowded_out",
    ]
    assert await hooks.webhook_log(TaskId("d")) == []


async def test_the_log_is_bounded(queue: RedisQueue, hooks: RedisWebhooks) -> None:
    await finish(queue, "a")
    for _ in range(schema.WEBHOOK_LOG_MOST + 3):
        (lease,) = await claim(hooks)
        await hooks.settle(lease, FAILED, 0)
    log = await hooks.webhook_log(TaskId("a"))
    assert len(log) == schema.WEBHOOK_LOG_MOST
    assert log[-1].attempt == schema.WEBHOOK_LOG_MOST + 3


async def test_a_webhook_of_which_nothing_is_kept_is_dropped(
    queue: RedisQueue, hooks: RedisWebhooks, redis: Redis, keys: Keys
) -> None:
    await finish(queue, "a", "b")
    await redis.delete(keys.prefix + KEY_NAMES["hook"] + "a")
    assert names(await claim(hooks)) == ["b"]
    assert (await hooks.claim(0, 4, {})).waiting == 1
