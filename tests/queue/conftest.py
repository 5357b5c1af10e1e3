"""A real server for the session, a queue for each test, and a check of what it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.key_check import find_leaks


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = connect(valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
async def keys(redis: Redis) -> AsyncIterator[Keys]:
    """Keys of this test's queue. Fails the test if it leaves a key that would stay for ever."""
    keys = Keys(uuid4().hex)
    yield keys
    leaks = await find_leaks(redis, keys)
    await redis.flushdb()
    assert not leaks, f"keys without TTL: {leaks}"


@pytest.fixture
def limits() -> QueueLimits:
    return QueueLimits()


@pytest.fixture
async def queue(redis: Redis, keys: Keys, limits: QueueLimits) -> RedisQueue:
    queue = RedisQueue(redis, keys.name, limits)
    await queue.start()
    return queue


@pytest.fixture
async def streams(redis: Redis, keys: Keys) -> AsyncIterator[RedisTokenStreams]:
    async with RedisTokenStreams(redis, keys.name) as streams:
        yield streams
