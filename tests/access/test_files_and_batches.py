"""Files, batches and responses are their tenant's alone, and a batch is bound as its caller is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from redis.asyncio import Redis

from forebay.access.caller import Allowance, Caller
from forebay.admission.pool import DecoderPool
from forebay.api.batches.callers import caller_of, told_caller
from forebay.core.request import Priority, Tenant
from forebay.queue.batches import BatchRecord
from tests.access.doors import guarded, make_key
from tests.api.door import MODEL, Door, eventually

CHAT = "/v1/chat/completions"


def client(door: Door, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key=key, max_retries=0)


def lines(count: int) -> bytes:
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    told = {"method": "POST", "url": CHAT, "body": body}
    return b"".join(
        json.dumps({"custom_id": f"n{at}", **told}).encode() + b"\n" for at in range(count)
    )


async def waits(door: Door, count: int) -> bool:
    return await door.waiting() == count


async def test_another_tenant_sees_none_of_it(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with (
        guarded(redis, tmp_path, decoders) as (door, access),
        client(door, await make_key(access, tenant="anna")) as anna,
        client(door, await make_key(access, tenant="bela")) as bela,
    ):
        file = await anna.files.create(file=("a", lines(1)), purpose="batch")
        batch = await anna.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        response = await anna.responses.create(model=MODEL, input="hi", background=True)
        assert [one.id async for one in anna.files.list()] == [file.id]
        assert [one async for one in bela.files.list()] == []
        assert [one async for one in bela.batches.list()] == []
        for asked in (
            bela.files.retrieve(file.id),
            bela.files.content(file.id),
            bela.files.delete(file.id),
            bela.batches.retrieve(batch.id),
            bela.batches.cancel(batch.id),
            bela.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"),
            bela.responses.retrieve(response.id),
            bela.responses.cancel(response.id),
            bela.responses.delete(response.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await asked
        await eventually(lambda: waits(door, 2))
        tenants = {lease.task_id for lease in await door.queue.claim("w", 9, 10**9)}
        records = [await door.queue.get(task_id) for task_id in tenants]
        assert {record and record.tenant for record in records} == {"anna"}


async def test_a_batch_has_no_more_in_the_queue_than_its_caller_may(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with (
        guarded(redis, tmp_path, decoders) as (door, access),
        client(door, await make_key(access, max_unfinished=2)) as anna,
    ):
        file = await anna.files.create(file=("a", lines(9)), purpose="batch")
        await anna.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        await eventually(lambda: waits(door, 2))


def test_a_caller_comes_back_from_the_batchs_record() -> None:
    allowance = Allowance(weight=2.0, max_waiting=3, top_priority=Priority(4))
    anna = Caller("key:1", Tenant("anna"), allowance=allowance, address="192.0.2.1")
    told = json.loads(json.dumps(told_caller(anna)))
    record = BatchRecord("batch_a", anna.tenant, CHAT, "file-a", 1, 2, 3, "24h", told)
    again = caller_of(record)
    assert (again.name, again.tenant, again.allowance) == (anna.name, anna.tenant, allowance)
