from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.queue.blobs import FolderBlobs
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from tests.checkpoints import TINY, write_checkpoint

LIMITS = QueueLimits(lease_s=2.0)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never stops by itself: an answer is as long as it was asked to be."""
    return write_checkpoint(tmp_path_factory.mktemp("model"), replace(TINY, stop_tokens=()))


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = connect(valkey.url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
async def queue(redis: Redis) -> RedisQueue:
    queue = RedisQueue(redis, "test", LIMITS)
    await queue.start()
    return queue


@pytest.fixture
async def streams(redis: Redis) -> AsyncIterator[RedisTokenStreams]:
    async with RedisTokenStreams(redis, "test", LIMITS) as streams:
        yield streams


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


@pytest.fixture
def engine(checkpoint: Path) -> Engine:
    return Engine.from_folder(checkpoint, limits=EngineLimits(max_running=4), device="cpu")
