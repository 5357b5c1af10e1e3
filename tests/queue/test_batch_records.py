"""Batches, files and responses as the queue's server keeps them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from forebay.core.errors import QueueFullError
from forebay.core.request import TaskId, Tenant
from forebay.queue import batches as module
from forebay.queue.batches import BatchRecord, BatchStatus, LeaseLostError, RedisBatches
from forebay.queue.files import FileRecord, RedisFiles
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.responses import RedisResponses, ResponseRecord
from forebay.queue.schema import Keys

ANNA, BELA = Tenant("anna"), Tenant("bela")


def batch(name: str = "batch_a", tenant: Tenant = ANNA) -> BatchRecord:
    return BatchRecord(
        batch_id=name,
        tenant=tenant,
        endpoint="/v1/chat/completions",
        input_id="file-1",
        created_s=1_700_000_000,
        expires_s=1_700_086_400,
        output_ttl_s=3600,
        window="24h",
        caller={"name": "anna's"},
        metadata={"名": "值"},
    )


@pytest.fixture
async def batches(redis: Redis, keys: Keys, queue: RedisQueue) -> RedisBatches:
    del queue  # it has loaded the library
    return RedisBatches(redis, keys.name, lease_s=0.3)


async def test_a_record_comes_back_as_it_was_kept(batches: RedisBatches) -> None:
    await batches.open(batch())
    assert await batches.get("batch_a") == batch()
    assert await batches.get("batch_b") is None


async def test_one_process_at_a_time_has_a_batch_in_hand(batches: RedisBatches) -> None:
    await batches.open(batch())
    taken = await batches.take("one")
    assert taken == batch()
    assert await batches.take("two") is None
    assert not await batches.keep("batch_a", "one", status=BatchStatus.IN_PROGRESS, total=7)
    with pytest.raises(LeaseLostError):
        await batches.keep("batch_a", "two", total=8)
    found = await batches.get("batch_a")
    assert found is not None
    assert (found.status, found.total) == (BatchStatus.IN_PROGRESS, 7)


async def test_a_lease_that_runs_out_lets_another_go_on(batches: RedisBatches) -> None:
    await batches.open(batch())
    await batches.take("one")
    await asyncio.sleep(0.2)
    await batches.keep("batch_a", "one")  # renewed
    await asyncio.sleep(0.2)
    assert await batches.take("two") is None
    await asyncio.sleep(0.2)
    assert await batches.take("two") is not None
    with pytest.raises(LeaseLostError):
        await batches.keep("batch_a", "one", completed=3)
    with pytest.raises(LeaseLostError):
        await batches.close("batch_a", "one", status=BatchStatus.COMPLETED)


async def test_what_is_given_back_is_anyones_at_once(batches: RedisBatches) -> None:
    await batches.open(batch())
    await batches.take("one")
    await batches.give_back("batch_a", "one")
    assert await batches.take("two") is not None


async def test_the_oldest_is_taken_first(batches: RedisBatches) -> None:
    for name in ("batch_a", "batch_b", "batch_c"):
        await batches.open(batch(name))
        await asyncio.sleep(0.005)
    taken = [await batches.take(f"w{at}") for at in range(3)]
    assert [one and one.batch_id for one in taken] == ["batch_a", "batch_b", "batch_c"]


async def test_its_holder_hears_of_a_cancellation(batches: RedisBatches) -> None:
    await batches.open(batch())
    await batches.take("one")
    assert not await batches.keep("batch_a", "one")
    assert await batches.cancel("batch_a", 1_700_000_100)
    assert await batches.keep("batch_a", "one")
    found = await batches.get("batch_a")
    assert found is not None
    assert found.told_status is BatchStatus.CANCELLING
    await batches.close("batch_a", "one", status=BatchStatus.CANCELLED, cancelled_at=1)
    assert not await batches.cancel("batch_a", 1_700_000_200)
    assert not await batches.cancel("nobody", 1)
    found = await batches.get("batch_a")
    assert found is not None
    assert found.told_status is BatchStatus.CANCELLED
    assert found.at == {"cancelling": 1_700_000_100, "cancelled": 1}


async def test_an_ended_batch_is_taken_by_nobody_and_forgotten_in_time(
    batches: RedisBatches, redis: Redis, keys: Keys
) -> None:
    await batches.open(batch())
    await batches.take("one")
    await batches.close("batch_a", "one", status=BatchStatus.COMPLETED)
    await asyncio.sleep(0.4)
    assert await batches.take("two") is None
    assert await redis.ttl(keys.batch("batch_a")) > 29 * 86_400


async def test_a_tenants_list_is_its_own_and_the_newest_first(batches: RedisBatches) -> None:
    for name, tenant in (("batch_a", ANNA), ("batch_b", BELA), ("batch_c", ANNA)):
        await batches.open(batch(name, tenant))
    assert await batches.newest_first(ANNA, None, 5) == ["batch_c", "batch_a"]
    assert await batches.newest_first(ANNA, "batch_c", 5) == ["batch_a"]
    with pytest.raises(KeyError):
        await batches.newest_first(ANNA, "batch_b", 5)
    await batches.drop_from_list(ANNA, ["batch_a"])
    assert await batches.newest_first(ANNA, None, 5) == ["batch_c"]


async def test_no_more_batches_than_the_bound(
    batches: RedisBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES_MOST", 2)
    for name in ("batch_a", "batch_b"):
        await batches.open(batch(name))
    await batches.open(batch("batch_b"))  # sent again
    with pytest.raises(QueueFullError):
        await batches.open(batch("batch_c"))
    assert await batches.get("batch_c") is None


def file(name: str, tenant: Tenant = ANNA, created_s: int = 100, ttl_s: int = 1000) -> FileRecord:
    return FileRecord(name, tenant, "名.jsonl", "batch", 9, created_s, created_s + ttl_s)


async def test_files_are_listed_for_their_tenant_until_they_expire(
    redis: Redis, keys: Keys
) -> None:
    files = RedisFiles(redis, keys.name)
    made = [file("file-a"), file("file-b", created_s=200), file("file-c", BELA)]
    for one in made:
        await files.add(one)
    await files.add(made[0])  # sent again
    assert await files.newest_first(ANNA) == [made[1], made[0]]
    assert await files.get("file-c") == made[2]
    await redis.pexpire(keys.file("file-b"), 1)
    await asyncio.sleep(0.02)
    assert await files.newest_first(ANNA) == [made[0]]
    assert await files.count(ANNA) == 1, "what has expired has left the index"
    assert await files.remove(made[0])
    assert not await files.remove(made[0])
    assert await files.get("file-a") is None


async def test_a_response_is_kept_once_and_as_long_as_its_answer(redis: Redis, keys: Keys) -> None:
    responses = RedisResponses(redis, keys.name, result_ttl_s=60)
    made = ResponseRecord(TaskId("t1"), ANNA, background=True, terms={"instructions": "简短"})
    await responses.keep(made)
    await responses.keep(replace(made, terms={}))
    assert await responses.get(made.response_id) == made
    assert await redis.ttl(keys.response(made.response_id)) > 86_400
    await responses.ended(made.response_id)
    assert await redis.ttl(keys.response(made.response_id)) <= 60
    await responses.remove(made.response_id)
    assert await responses.get(made.response_id) is None
