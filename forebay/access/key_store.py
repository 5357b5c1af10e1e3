"""API keys in the queue's server: made, listed, rotated, revoked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from redis.asyncio import Redis

from forebay.access.caller import Allowance, Scope
from forebay.access.errors import AccessSetupError
from forebay.access.keys import (
    ApiKey,
    KeyId,
    digest,
    from_fields,
    mint,
    new_key_id,
    pepper_mark,
    to_fields,
)
from forebay.access.library import AccessLibrary, access_keys
from forebay.core.errors import InvalidRequestError, KeyNotFoundError
from forebay.core.request import Tenant
from forebay.queue.connection import unavailable
from forebay.queue.schema import ENDED_KEY_TTL_S, KEY_NAMES, MOST_API_KEYS


class KeyStore:
    """The keys of one queue. Every method may raise QueueUnavailableError.

    A key itself is returned by ``create`` and ``rotate``, and nowhere else.
    """

    def __init__(
        self, redis: Redis, queue_name: str, pepper: bytes, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._prefix = access_keys(queue_name).prefix
        self._library = AccessLibrary(redis, queue_name)
        self._pepper = pepper
        self._now = clock

    async def start(self) -> None:
        """Load the library, and see that keys are hashed as those that there are.

        Raises:
            AccessSetupError: there are keys that were made under another pepper.
        """
        mark = pepper_mark(self._pepper)
        async with unavailable("looking for API keys"):
            await self._library.load()
            agreed = await self._library.key_pepper(mark)
        if not agreed:
            raise AccessSetupError(
                "the API keys in the queue's server were made under another pepper. Give every "
                "process the same key_pepper_file; where it is lost, `forebay keys clear` forgets "
                "the keys"
            )

    def digest(self, key: str) -> str:
        """Return the hash under which a key would be kept."""
        return digest(self._pepper, key)

    async def create(
        self,
        label: str,
        scopes: frozenset[Scope],
        tenant: Tenant,
        allowance: Allowance,
        lifetime_s: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; return what is kept of it, and the key itself.

        Raises InvalidRequestError for what no key may have, or where there are too many.
        """
        key_id, now = new_key_id(), self._now()
        text = mint(key_id)
        expires = None if lifetime_s is None else now + lifetime_s
        try:
            key = ApiKey(key_id, self.digest(text), label, scopes, now, tenant, allowance, expires)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from error
        keep_ms = 0 if lifetime_s is None else round((lifetime_s + ENDED_KEY_TTL_S) * 1000)
        async with unavailable("keeping an API key"):
            kept = await self._library.key_write(key_id, MOST_API_KEYS, keep_ms, to_fields(key))
        if not kept:
            raise InvalidRequestError(f"there are {MOST_API_KEYS} keys already; revoke some")
        return key, text

    async def find(self, key_id: KeyId) -> ApiKey | None:
        """Return a key, None for an unknown one."""
        async with unavailable("reading an API key"):
            fields = await self._redis.hgetall(self._prefix + KEY_NAMES["api_key"] + key_id)
        return from_fields(key_id, cast("dict[str, str]", fields)) if fields else None

    async def get(self, key_id: KeyId) -> ApiKey:
        """Return a key. Raises KeyNotFoundError."""
        found = await self.find(key_id)
        if found is None:
            raise KeyNotFoundError(f"there is no API key {key_id[:32]!r}")
        return found

    async def list_keys(self) -> list[ApiKey]:
        """Return every key, the newest first; revoked and expired ones for a month."""
        async with unavailable("listing API keys"):
            index = self._prefix + KEY_NAMES["api_keys"]
            ids = cast("list[str]", await self._redis.zrange(index, 0, -1))[::-1]
            async with self._redis.pipeline(transaction=False) as pipe:
                for key_id in ids:
                    pipe.hgetall(self._prefix + KEY_NAMES["api_key"] + key_id)
                rows = await pipe.execute()
        return [from_fields(KeyId(i), row) for i, row in zip(ids, rows, strict=True) if row]

    async def rotate(self, key_id: KeyId, overlap_s: float) -> tuple[ApiKey, str]:
        """Make a new key of the same id; the one before stays good for ``overlap_s``.

        Raises KeyNotFoundError for one that is unknown or no longer good; InvalidRequestError when
        someone else changed it at the same moment.
        """
        key, now = await self.get(key_id), self._now()
        if not key.is_live(now):
            raise KeyNotFoundError(f"the API key {key_id} is revoked or has expired")
        text = mint(key_id)
        mac, until = self.digest(text), now + overlap_s
        async with unavailable("rotating an API key"):
            done = await self._library.key_rotate(key_id, key.mac, mac, until, now)
        if not done:
            raise InvalidRequestError(f"the API key {key_id} was changed meanwhile; look at it")
        return replace(key, mac=mac, old_mac=key.mac, old_until_s=until, rotated_s=now), text

    async def revoke(self, key_id: KeyId) -> ApiKey:
        """End a key now, and the one before it. Raises KeyNotFoundError."""
        async with unavailable("revoking an API key"):
            known = await self._library.key_revoke(key_id, self._now(), ENDED_KEY_TTL_S * 1000)
        if not known:
            raise KeyNotFoundError(f"there is no API key {key_id[:32]!r}")
        return await self.get(key_id)
