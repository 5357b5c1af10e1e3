"""How often workers of this queue were replaced, by reason: counters that outlive every process."""

from __future__ import annotations

from redis.asyncio import Redis

from forebay.queue.connection import unavailable
from forebay.queue.schema import Keys


class RedisReplacements:
    """Counters on one Redis; every method raises QueueUnavailableError without it."""

    def __init__(self, redis: Redis, name: str = "main") -> None:
        self._redis = redis
        self._keys = Keys(name)

    async def note(self, reason: str) -> None:
        """Count one replacement."""
        async with unavailable("counting a replaced worker"):
            await self._redis.hincrby(self._keys.replaced, reason, 1)

    async def counts(self) -> dict[str, int]:
        """Return how many there were, by reason, since the queue was made."""
        async with unavailable("reading replaced workers"):
            found = await self._redis.hgetall(self._keys.replaced)
        return {str(reason): int(count) for reason, count in found.items()}
