from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from forebay.admission.pool import DecoderPool, PoolLimits
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from tests.api.door import Door, open_door


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = connect(valkey.url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
async def decoders() -> AsyncIterator[DecoderPool]:
    """Its process starts with the first picture, so tests without one are quick."""
    pool = DecoderPool(PoolLimits(processes=1))
    yield pool
    await pool.__aexit__()


@pytest.fixture
async def door(redis: Redis, tmp_path: Path, decoders: DecoderPool) -> AsyncIterator[Door]:
    async with open_door(redis, tmp_path / "blobs", decoders) as door:
        yield door
