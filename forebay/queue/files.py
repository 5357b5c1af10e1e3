"""What is known of the files that clients upload and that batches write. Contents lie elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from redis.asyncio import Redis

from forebay.core.request import Tenant
from forebay.queue.connection import unavailable
from forebay.queue.schema import Keys

MOST_FILES: Final = 10_000
"""Files of one tenant; a list of more could not be kept in order cheaply."""

LONGEST_TTL_S: Final = 30 * 86_400
"""Of any file."""

_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file. Times are seconds since the epoch, ``size`` is in bytes."""

    file_id: str
    tenant: Tenant
    filename: str
    purpose: str
    size: int
    created_s: int
    expires_s: int


class RedisFiles:
    """Records of files on one Redis; every method raises QueueUnavailableError without it."""

    def __init__(self, redis: Redis, name: str = "main") -> None:
        self._redis = redis
        self._keys = Keys(name)

    async def add(self, file: FileRecord) -> None:
        """Keep a record until the file expires. The same one may be added again."""
        index, ttl_s = self._keys.files(file.tenant), max(1, file.expires_s - file.created_s)
        async with unavailable("keeping a file"):
            await self._redis.zadd(index, {file.file_id: file.created_s}, nx=True)
            # it lives as long as the longest of its files
            await self._redis.expire(index, LONGEST_TTL_S)
            await self._redis.set(self._keys.file(file.file_id), json.dumps(asdict(file)), ex=ttl_s)

    async def count(self, tenant: Tenant) -> int:
        """Return about how many files a tenant has; some of them may have expired."""
        async with unavailable("counting files"):
            return int(await self._redis.zcard(self._keys.files(tenant)))

    async def get(self, file_id: str) -> FileRecord | None:
        """Return a record, None where there is none (any more)."""
        async with unavailable("looking for a file"):
            text = await self._redis.get(self._keys.file(file_id))
        return None if text is None else _record(str(text))

    async def remove(self, file: FileRecord) -> bool:
        """Forget a file; False when it was forgotten before."""
        async with unavailable("removing a file"):
            removed = await self._redis.delete(self._keys.file(file.file_id))
            await self._redis.zrem(self._keys.files(file.tenant), file.file_id)
        return bool(removed)

    async def newest_first(self, tenant: Tenant) -> list[FileRecord]:
        """Return a tenant's files. What has expired leaves the index here."""
        index, found = self._keys.files(tenant), []
        async with unavailable("listing files"):
            ids = [str(one) for one in await self._redis.zrevrange(index, 0, MOST_FILES - 1)]
            for at in range(0, len(ids), _PAGE):
                found += await self._page(index, ids[at : at + _PAGE])
        return found

    async def _page(self, index: str, ids: Sequence[str]) -> list[FileRecord]:
        texts = await self._redis.mget([self._keys.file(one) for one in ids])
        expired = [one for one, text in zip(ids, texts, strict=True) if text is None]
        if expired:
            await self._redis.zrem(index, *expired)
        return [_record(str(text)) for text in texts if text is not None]


def _record(text: str) -> FileRecord:
    return FileRecord(**json.loads(text))
