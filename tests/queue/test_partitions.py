from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from forebay.core.errors import QueueFullError, TaskNotFoundError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId, Tenant
from forebay.queue.address import parse_address
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.opening import OpenQueue, open_queue
from forebay.queue.partitions import partition_in, partition_of
from forebay.queue.ports import Idempotency, Listing, StreamKind, StreamWrite
from forebay.queue.schema import Keys
from tests.queue.key_check import find_leaks
from tests.queue.making import PLENTY, answer, held, names, task

PARTITIONS = 3
TENANTS = [f"t{n}" for n in range(12)]


@pytest.fixture
async def parts(valkey: EmbeddedValkey, redis: Redis) -> AsyncIterator[OpenQueue]:
    limits = QueueLimits(max_waiting=30)
    address = parse_address(valkey.url)
    async with (
        open_queue(address, "parts", limits, partitions=PARTITIONS) as opened,
        opened.streams,
    ):
        yield opened
    keys = [Keys(f"parts:{number}") for number in range(PARTITIONS)]
    leaks = [leak for one in keys for leak in await find_leaks(redis, one)]
    own = tuple(one.prefix for one in keys)
    await redis.flushdb()
    found = [leak for leak in leaks if not leak.startswith((*own, Keys("parts").meta))]
    assert not found, f"keys without TTL: {found}"


async def fill(opened: OpenQueue) -> dict[str, TaskId]:
    """Enqueue a task of each tenant; return their ids."""
    given = {}
    for tenant in TENANTS:
        given[tenant] = (await opened.queue.enqueue(task(tenant, tenant=tenant))).task_id
    return given


@given(st.text(min_size=1), st.integers(2, 64))
def test_an_id_leads_to_its_tenants_partition(tenant: str, partitions: int) -> None:
    number = partition_of(Tenant(tenant), partitions)
    assert partition_in(TaskId(f"{number}-abc"), partitions) == number


@pytest.mark.parametrize("task_id", ["", "abc", "-abc", "3-abc", "0-", "٠-abc", "999999-abc"])
async def test_an_id_that_no_partition_gave_is_unknown(parts: OpenQueue, task_id: str) -> None:
    assert await parts.queue.get(TaskId(task_id)) is None
    assert not await parts.queue.cancel(TaskId(task_id))
    assert not await parts.operator.retry(TaskId(task_id))
    with pytest.raises(TaskNotFoundError):
        parts.streams.subscribe(TaskId(task_id))
    assert await parts.streams.append([StreamWrite(TaskId(task_id), 1, "a", 1)]) == {task_id}  # type: ignore[arg-type]
    assert (await parts.queue.heartbeat("w", [(TaskId(task_id), 1)])).lost == {task_id}  # type: ignore[list-item]


async def test_tasks_live_through_their_partitions_as_through_one_queue(parts: OpenQueue) -> None:
    given = await fill(parts)
    assert len({task_id.partition("-")[0] for task_id in given.values()}) > 1
    assert (await parts.queue.depth()).waiting == len(given)
    cancelled = given.pop(TENANTS[0])
    assert await parts.queue.cancel(cancelled)
    leases = await parts.queue.claim("w", 99, PLENTY)
    assert sorted(names(leases)) == sorted(given.values())
    assert (await parts.queue.heartbeat("w", [held(one) for one in leases])).lost == set()
    assert await parts.queue.workers() == 1
    first, *others = leases
    async with parts.streams.subscribe(first.task_id) as entries:
        writes = [StreamWrite(one.task_id, one.fence, "4", 1) for one in leases]
        for _ in range(2):  # sent twice under one nonce is written once
            assert await parts.streams.append(writes, nonce="n") == set()
        stored = await parts.queue.finish([answer(one) for one in (first, *others[:2])])
        assert sorted(stored) == sorted(one.task_id for one in (first, *others[:2]))
        kinds = [entry.kind async for entry in entries]
    assert kinds == [StreamKind.DELTA, StreamKind.DONE]
    released = await parts.queue.release([held(one) for one in others[2:]])
    assert sorted(released) == sorted(one.task_id for one in others[2:])
    again = await parts.queue.claim("w", 99, PLENTY)
    assert sorted(await parts.queue.reap("w")) == sorted(names(again))


async def test_claims_begin_with_another_partition_each_time(parts: OpenQueue) -> None:
    await fill(parts)
    first = {(await parts.queue.claim(f"w{n}", 1, PLENTY))[0].task_id[0] for n in range(3)}
    assert first == {"0", "1", "2"}


async def test_the_caps_are_shares_and_a_tenant_meets_its_partitions(parts: OpenQueue) -> None:
    for number in range(10):  # of thirty for all three partitions
        await parts.queue.enqueue(task(f"x{number}", tenant="one"))
    with pytest.raises(QueueFullError):
        await parts.queue.enqueue(task("y", tenant="one"))
    other = next(
        one
        for one in TENANTS
        if partition_of(Tenant(one), PARTITIONS) != partition_of(Tenant("one"), PARTITIONS)
    )
    await parts.queue.enqueue(task("y", tenant=other))


async def test_work_in_any_partition_ends_the_wait(parts: OpenQueue) -> None:
    for tenant in TENANTS:
        await parts.queue.wait_for_work(0.01)  # what has been seen before
        waiting = asyncio.create_task(parts.queue.wait_for_work(60))
        await asyncio.sleep(0.05)
        await parts.queue.enqueue(task(tenant, tenant=tenant))
        await asyncio.wait_for(waiting, 20)


def apart() -> tuple[str, str]:
    """Return two tenants of different partitions."""
    one, *others = TENANTS
    home = partition_of(Tenant(one), PARTITIONS)
    return one, next(t for t in others if partition_of(Tenant(t), PARTITIONS) != home)


async def test_a_suspect_runs_beside_nothing_of_any_partition(parts: OpenQueue) -> None:
    for tenant in apart():
        await parts.queue.enqueue(task(tenant, tenant=tenant))
    assert len(await parts.queue.claim("w", 9, PLENTY)) == 2
    await parts.queue.reap("w")
    seen = set()
    for _ in range(2):
        (alone,) = await parts.queue.claim("w", 9, PLENTY)
        for _ in range(PARTITIONS):
            assert await parts.queue.claim("w", 9, PLENTY, [alone.task_id]) == []
        await parts.queue.finish([answer(alone)])
        seen.add(alone.task_id)
    assert len(seen) == 2


async def test_a_task_is_no_dead_letter_for_anothers_crashes_in_another_partition(
    parts: OpenQueue,
) -> None:
    one, other = apart()
    poison = (await parts.queue.enqueue(task("poison", tenant=one))).task_id
    innocent = (await parts.queue.enqueue(task("innocent", tenant=other))).task_id
    while leases := await parts.queue.claim("w", 9, PLENTY):
        if poison in names(leases):
            await parts.queue.reap("w")
        else:
            await parts.queue.finish([answer(lease) for lease in leases])
    records = [await parts.queue.get(one) for one in (poison, innocent)]
    assert [one and one.state for one in records] == [State.DEAD, State.FINISHED]


async def test_a_worker_runs_empty_of_every_partition_for_a_suspect(parts: OpenQueue) -> None:
    one, other = apart()
    await parts.queue.enqueue(task("suspect", tenant=one))
    await parts.queue.claim("dies", 9, PLENTY)
    await parts.queue.enqueue(task("running", tenant=other))
    (running,) = await parts.queue.claim("w", 9, PLENTY)
    await parts.queue.reap("dies")
    # Its next claim tells it of the suspect.
    assert await parts.queue.claim("w", 9, PLENTY, [running.task_id]) == []
    await parts.queue.enqueue(task("more", tenant=other))
    for _ in range(PARTITIONS):
        assert await parts.queue.claim("w", 9, PLENTY, [running.task_id]) == []
    await parts.queue.finish([answer(running)])
    found = []
    for _ in range(2):
        (lease,) = await parts.queue.claim("w", 9, PLENTY)
        found.append(lease.task_id.partition("-")[2])
        await parts.queue.finish([answer(lease)])
    assert found == ["suspect", "more"]


async def test_other_workers_go_on_in_every_partition_while_one_runs_a_suspect(
    parts: OpenQueue,
) -> None:
    one, other = apart()
    await parts.queue.enqueue(task("suspect", tenant=one))
    await parts.queue.claim("dies", 9, PLENTY)
    await parts.queue.enqueue(task("running", tenant=other))
    (running,) = await parts.queue.claim("busy", 9, PLENTY)
    await parts.queue.reap("dies")
    assert await parts.queue.claim("busy", 9, PLENTY, [running.task_id]) == []
    (suspect,) = await parts.queue.claim("idle", 9, PLENTY)
    assert suspect.task_id.endswith("suspect")
    for name in ("more", "still-more"):
        await parts.queue.enqueue(task(name, tenant=other))
    leases = await parts.queue.claim("busy", 9, PLENTY, [running.task_id])
    assert len(leases) == 2


async def test_a_key_is_looked_for_in_its_tenants_partition(parts: OpenQueue) -> None:
    key = Idempotency("key", "asked")
    for tenant in apart():
        first = await parts.queue.enqueue(task(tenant, tenant=tenant, idempotency=key))
        again = await parts.queue.replayed(Tenant(tenant), key)
        assert again == replace(first, fresh=False)


async def test_a_listing_goes_through_all_partitions(parts: OpenQueue) -> None:
    given = await fill(parts)
    found: list[TaskId] = []
    cursor = ""
    while True:
        page = await parts.operator.list_tasks(Listing.WAITING, cursor=cursor, limit=2)
        found += [one.task_id for one in page.tasks]
        if not (cursor := page.cursor):
            break
    assert sorted(found) == sorted(given.values())
    assert set(await parts.operator.tenants()) == set(given)
    with pytest.raises(ValueError, match="cursor"):
        await parts.operator.list_tasks(Listing.WAITING, cursor="9:")
    await parts.operator.drain()
    assert (await parts.queue.depth()).drained
    assert await parts.queue.claim("w", 9, PLENTY) == []
    await parts.operator.drain(on=False)
    assert len(await parts.queue.claim("w", 99, PLENTY)) == len(given)
    assert replace(await parts.queue.depth(), oldest_s=0).leased == len(given)
