"""The unmodified ``openai`` client, pointed at a door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai

from tests.api.door import Door


@asynccontextmanager
async def talking(door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{door.url}/v1", api_key="any", http_client=http, max_retries=0, timeout=60
    ) as client:
        yield client
