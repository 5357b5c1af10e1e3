from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from forebay.client import Client
from tests.api.conftest import decoders, door, redis, valkey
from tests.api.door import Door

__all__ = ["client", "decoders", "door", "redis", "valkey"]


@pytest.fixture
async def client(door: Door) -> AsyncIterator[Client]:
    async with Client(door.url, patience_s=10) as client:
        yield client
