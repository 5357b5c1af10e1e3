"""One picture asked about many times is stored once, and never missed where it must be there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from redis.asyncio import Redis

from forebay.access.caller import ANONYMOUS, Caller
from forebay.admission.pool import DecoderPool
from forebay.api.intake import Ask, RawPicture, Turn, submit
from forebay.api.load import LoadGauge
from forebay.api.services import Services
from forebay.api.stored_lately import MOST_KNOWN, RELIED_ON_S, StoredLately
from forebay.core.request import DEFAULT_TENANT, Role, SamplingParams, Tenant
from forebay.queue.address import parse_address
from forebay.queue.blob_places import PlacedBlobs, PlacedClaims
from forebay.queue.blobs_redis import HOLD_S, HeldBlobs, RedisClaims
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.opening import open_queue
from forebay.queue.partitions import partition_of
from forebay.queue.schema import KEY_NAMES, Keys
from tests.admission.pictures import picture
from tests.api.door import QUEUE_LIMITS, Door, open_door

TENANTS = [Tenant(f"t{n}") for n in range(6)]


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


class CountedBlobs(HeldBlobs):
    puts = 0

    async def put(self, content: bytes, tenant: Tenant = DEFAULT_TENANT) -> str:
        self.puts += 1
        return await super().put(content, tenant)


def ask(number: int, content: bytes) -> Ask:
    turn = Turn(Role.USER, (RawPicture(content), f"question {number}"))
    return Ask((turn,), SamplingParams(max_tokens=8))


def caller(tenant: Tenant = DEFAULT_TENANT) -> Caller:
    return replace(ANONYMOUS, tenant=tenant)


@asynccontextmanager
async def claiming(
    redis: Redis, folder: Path, decoders: DecoderPool
) -> AsyncIterator[tuple[Door, Services, CountedBlobs]]:
    """Yield a door whose pictures are claimed, as those of ``forebay api`` are."""
    async with open_door(redis, folder, decoders) as door:
        blobs = CountedBlobs(door.services.blobs, RedisClaims(redis, "test"))
        yield door, replace(door.services, blobs=blobs, holds_pictures=True), blobs


def test_a_picture_is_known_for_a_while_and_to_its_tenant_alone():
    clock = Clock()
    known = StoredLately(clock)
    known.note(TENANTS[0], "a", known.now())
    clock.s += RELIED_ON_S - 1
    assert known.has(TENANTS[0], "a")
    assert not known.has(TENANTS[1], "a")
    assert not known.has(TENANTS[0], "b")
    clock.s += 1
    assert not known.has(TENANTS[0], "a")
    assert RELIED_ON_S <= HOLD_S / 2  # as long again for a request's way into the queue


def test_what_is_known_is_bounded_and_can_be_forgotten():
    known = StoredLately(Clock())
    for number in range(MOST_KNOWN + 1):
        known.note(DEFAULT_TENANT, str(number), known.now())
    assert not known.has(DEFAULT_TENANT, "0")
    assert known.has(DEFAULT_TENANT, "1")
    known.forget(DEFAULT_TENANT, ["1", "never stored"])
    assert not known.has(DEFAULT_TENANT, "1")
    assert known.has(DEFAULT_TENANT, "2")


async def test_many_questions_about_one_picture_store_it_once(redis, tmp_path, decoders):
    async with claiming(redis, tmp_path / "blobs", decoders) as (door, services, blobs):
        content = picture(size=(60, 40))
        await submit(services, ask(0, content), caller())
        await asyncio.gather(*(submit(services, ask(n, content), caller()) for n in range(1, 9)))
        assert (blobs.puts, await door.waiting()) == (1, 9)
        await submit(services, ask(9, picture(size=(60, 41))), caller())
        await submit(services, ask(10, content), caller(TENANTS[0]))
        assert blobs.puts == 3


async def test_a_queue_that_lost_its_claims_has_the_picture_stored_anew(redis, tmp_path, decoders):
    async with claiming(redis, tmp_path / "blobs", decoders) as (door, services, blobs):
        content = picture(size=(60, 40))
        lost = await submit(services, ask(0, content), caller())
        await door.queue.cancel(lost.task_id)
        await redis.delete(Keys("test").prefix + KEY_NAMES["holds"])
        taken = await submit(services, ask(1, content), caller())
        assert blobs.puts == 2
        record = await door.queue.get(taken.task_id)
        assert record is not None
        assert not record.state.final


async def test_every_tenants_pictures_are_claimed_where_its_tasks_are(
    valkey: EmbeddedValkey, redis, tmp_path, decoders
):
    assert len({partition_of(tenant, 3) for tenant in TENANTS}) > 1
    async with (
        open_door(redis, tmp_path / "blobs", decoders) as door,
        open_queue(parse_address(valkey.url), "parts", QUEUE_LIMITS, partitions=3) as opened,
    ):
        services = replace(
            door.services,
            queue=opened.queue,
            load=LoadGauge(opened.queue),
            blobs=HeldBlobs(PlacedBlobs(opened.places), PlacedClaims(opened.places)),
            holds_pictures=True,
        )
        for number, tenant in enumerate(TENANTS):
            await submit(services, ask(number, picture(size=(60, 40))), caller(tenant))
        assert (await opened.queue.depth()).waiting == len(TENANTS)
