"""Pictures in the queue's own server, and who needs which picture wherever it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.client import NEVER_DECODE
from redis.exceptions import OutOfMemoryError

from forebay.core.errors import StorageFullError
from forebay.core.request import DEFAULT_TENANT, Tenant
from forebay.queue.blobs import SHA256_HEX
from forebay.queue.connection import unavailable
from forebay.queue.library_blobs import BlobLibrary
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import BlobClaims, BlobStore
from forebay.queue.schema import Keys

HOLD_S: Final = 120.0
"""Longest way of a request from its first stored picture into the queue."""

RETRY_AFTER_S: Final = 60.0


class RedisClaims:
    """BlobClaims, kept by the queue's library with the tasks themselves."""

    def __init__(self, redis: Redis, name: str = "main", limits: QueueLimits | None = None) -> None:
        self._library = BlobLibrary(redis, Keys(name), limits or QueueLimits())

    async def hold(self, sha256s: Sequence[str], tenant: Tenant = DEFAULT_TENANT) -> None:
        """Claim blobs for a request on its way in. Raises StorageFullError, QueueUnavailableError.

        A claim lasts ``HOLD_S``; ``enqueue`` turns it into the task's own.
        """
        del tenant
        async with unavailable("claiming pictures"):
            try:
                await self._library.hold(sha256s, HOLD_S)
            except OutOfMemoryError as error:
                raise _full() from error

    async def unneeded(self, sha256s: Sequence[str]) -> set[str]:
        """Return those that nobody needs. Raises QueueUnavailableError."""
        if not sha256s:
            return set()
        async with unavailable("asking who needs a picture"):
            return set(await self._library.unneeded(sha256s))


class RedisBlobs:
    """BlobStore in the queue's server: small installations on several machines need nothing else.

    A blob is a key of its own. It stays while a task needs it, and expires ``blob_ttl_s`` after the
    last one has ended; no sweep has to look.
    """

    def __init__(self, redis: Redis, name: str = "main", limits: QueueLimits | None = None) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._library = BlobLibrary(redis, self._keys, limits or QueueLimits())

    async def put(self, content: bytes, tenant: Tenant = DEFAULT_TENANT) -> str:
        """Store ``content``; return its SHA-256.

        Raises:
            StorageFullError: the server's memory is full; nothing was kept.
            QueueUnavailableError: it does not answer.
        """
        del tenant
        sha256 = hashlib.sha256(content).hexdigest()
        async with unavailable("storing a picture"):
            try:
                if not await self._library.hold([sha256], HOLD_S):
                    await self._library.put_blob(sha256, content)
            except OutOfMemoryError as error:
                raise _full() from error
        return sha256

    async def settle(self, sha256s: Sequence[str]) -> None:
        """Return at once: a picture is as safe as the tasks beside it."""

    async def get(self, sha256: str, tenant: Tenant = DEFAULT_TENANT) -> bytes:
        """Return the bytes, verified.

        Raises KeyError when they are not there or are damaged, QueueUnavailableError.
        """
        del tenant
        if not SHA256_HEX.fullmatch(sha256):
            raise KeyError(sha256)
        key = self._keys.blob(sha256)
        read: Any = self._redis.execute_command  # get() would decode the bytes as text
        async with unavailable("reading a picture"):
            content: bytes | None = await read("GET", key, **{NEVER_DECODE: True})
        if content is None:
            raise KeyError(sha256)
        if hashlib.sha256(content).hexdigest() != sha256:
            async with unavailable("removing a damaged picture"):
                await self._redis.delete(key)
            raise KeyError(sha256)
        return content


class HeldBlobs:
    """What the door holds: a picture is claimed before it is stored, so that no sweep takes it."""

    def __init__(self, store: BlobStore, claims: BlobClaims) -> None:
        self._store = store
        self._claims = claims

    async def put(self, content: bytes, tenant: Tenant = DEFAULT_TENANT) -> str:
        """Claim, then store. Raises StorageFullError, QueueUnavailableError; nothing was kept."""
        await self._claims.hold([hashlib.sha256(content).hexdigest()], tenant)
        return await self._store.put(content, tenant)

    async def settle(self, sha256s: Sequence[str]) -> None:
        """Return when they are safe. Raises StorageFullError, QueueUnavailableError."""
        await self._store.settle(sha256s)

    async def get(self, sha256: str, tenant: Tenant = DEFAULT_TENANT) -> bytes:
        """Return the bytes. Raises KeyError."""
        return await self._store.get(sha256, tenant)


def _full() -> StorageFullError:
    return StorageFullError(
        "The queue's server has no memory left for pictures.", retry_after=RETRY_AFTER_S
    )
