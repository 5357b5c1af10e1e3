"""Who is served when: shares of less urgent levels, weights of tenants, and nobody left behind."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from forebay.core.request import Priority
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from tests.queue.making import PLENTY, answer, names, task


async def serve(queue: RedisQueue, count: int, batch: int = 1) -> list[str]:
    """Claim and finish ``count`` tasks; return their names in the order of their leases."""
    served: list[str] = []
    while len(served) < count:
        leases = await queue.claim("w", min(batch, count - len(served)), PLENTY)
        if not leases:
            break
        served += names(leases)
        await queue.finish([answer(lease) for lease in leases])
    return served


@pytest.mark.parametrize("batch", [1, 7])
async def test_batch_work_gets_its_share_while_urgent_work_never_ends(
    queue: RedisQueue, batch: int
) -> None:
    for i in range(100):
        await queue.enqueue(task(f"vip{i}", priority=Priority.VIP, cost=20))
    for i in range(30):
        await queue.enqueue(task(f"batch{i}", priority=Priority.BATCH, cost=10))
    served = await serve(queue, 84, batch)
    tokens = {kind: sum(name.startswith(kind) for name in served) for kind in ("vip", "batch")}
    share = 10 * tokens["batch"] / (10 * tokens["batch"] + 20 * tokens["vip"])
    assert share == pytest.approx(0.1 / 1.1, abs=0.02)


@pytest.mark.parametrize("limits", [QueueLimits(starvation_share=0)])
async def test_without_a_share_the_urgent_go_first_to_the_last(queue: RedisQueue) -> None:
    for i in range(20):
        await queue.enqueue(task(f"batch{i}", priority=Priority.BATCH, cost=1))
        await queue.enqueue(task(f"vip{i}", priority=Priority.VIP, cost=100))
    assert all(name.startswith("vip") for name in await serve(queue, 20))


async def test_the_share_goes_to_whoever_has_waited_longest(queue: RedisQueue) -> None:
    await queue.enqueue(task("batch", priority=Priority.BATCH, cost=10))
    await queue.enqueue(task("normal", priority=Priority.NORMAL, cost=10))
    for i in range(30):
        await queue.enqueue(task(f"vip{i}", priority=Priority.VIP, cost=10))
    served = await serve(queue, 22)
    assert [name for name in served if "vip" not in name] == ["batch", "normal"]


async def test_a_tenant_of_twice_the_weight_is_served_twice_as_much(queue: RedisQueue) -> None:
    for i in range(30):
        await queue.enqueue(task(f"heavy{i}", tenant="heavy", weight=2.0))
        await queue.enqueue(task(f"light{i}", tenant="light"))
    assert sum(name.startswith("heavy") for name in await serve(queue, 30)) == 20


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    many=st.integers(100, 300),
    few=st.integers(1, 10),
    costs=st.lists(st.integers(1, 100), min_size=10, max_size=10),
    batch=st.integers(1, 16),
)
async def test_nine_with_few_tasks_are_served_in_twice_the_time_they_need_alone(
    redis: Redis, keys: Keys, many: int, few: int, costs: list[int], batch: int
) -> None:
    queue = RedisQueue(redis, keys.name)
    await redis.flushdb()
    await queue.start()
    big = costs[0]
    for i in range(many):
        await queue.enqueue(task(f"big{i}", tenant="big", cost=big))
    cost = sum(costs[1:]) // 9 + 1
    for i in range(few):
        for tenant in range(9):
            await queue.enqueue(task(f"s{tenant}-{i}", tenant=f"s{tenant}", cost=cost))
    served = await serve(queue, many + 9 * few, batch)
    assert Counter(served).most_common(1)[0][1] == 1
    last = max(at for at, name in enumerate(served) if name.startswith("s"))
    before = served[: last + 1]
    tokens = sum(big if name.startswith("big") else cost for name in before)
    # alone they need 9 * few * cost; the tenth share and one task under way come on top
    assert tokens <= 2 * 9 * few * cost + big
