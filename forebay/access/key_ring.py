"""API keys as the door checks them: most from memory, none for longer than two seconds."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from forebay.access.caller import Scope
from forebay.access.key_store import KeyStore
from forebay.access.keys import ApiKey, KeyId, key_id_of

FRESH_S: Final = 2.0
"""How long a look at a key counts: a revoked one is refused everywhere after that."""

MOST_HELD: Final = 10_000
_NOBODY: Final = ApiKey(KeyId(""), "0" * 64, "", frozenset(Scope), created_s=0.0)


@dataclass(frozen=True, slots=True)
class _Held:
    key: ApiKey
    seen_s: float


class KeyRing:
    """Finds the key that a client sent. Unknown ids are not remembered: they cost their guesser."""

    def __init__(
        self,
        store: KeyStore,
        *,
        fresh_s: float = FRESH_S,
        most: int = MOST_HELD,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._fresh_s = fresh_s
        self._most = most
        self._clock = clock
        self._today = today
        self._held: OrderedDict[KeyId, _Held] = OrderedDict()
        self._looks: dict[KeyId, asyncio.Future[ApiKey | None]] = {}

    async def find(self, text: str) -> ApiKey | None:
        """Return the live key that ``text`` is, or None. Raises QueueUnavailableError."""
        key_id = key_id_of(text)
        mac = self._store.digest(text)
        key = None if key_id is None else await self._look(key_id)
        # compared for unknown ids too: the time of an answer tells nothing
        fits = (key or _NOBODY).accepts(mac, self._today())
        return key if key is not None and fits and key.is_live(self._today()) else None

    def holds(self, text: str) -> bool:
        """Whether ``text`` is a key that was seen before, and as far as is known still good."""
        held = self._held.get(key_id_of(text) or KeyId(""))
        return held is not None and held.key.accepts(self._store.digest(text), self._today())

    def forget(self, key_id: KeyId) -> None:
        """Look again at the next use: this process has just changed the key."""
        self._held.pop(key_id, None)

    async def _look(self, key_id: KeyId) -> ApiKey | None:
        held = self._held.get(key_id)
        if held is not None and self._clock() - held.seen_s < self._fresh_s:
            self._held.move_to_end(key_id)
            return held.key
        return await self._once(key_id, lambda: self._read(key_id))

    async def _once(
        self, key_id: KeyId, read: Callable[[], Awaitable[ApiKey | None]]
    ) -> ApiKey | None:
        """Of those who look for one key at a time, one asks the server for all."""
        look = self._looks.get(key_id)
        if look is None:
            look = asyncio.ensure_future(read())
            self._looks[key_id] = look
            look.add_done_callback(lambda _: self._looks.pop(key_id, None))
        return await asyncio.shield(look)

    async def _read(self, key_id: KeyId) -> ApiKey | None:
        began = self._clock()
        key = await self._store.find(key_id)
        if key is None:
            self._held.pop(key_id, None)
            return None
        self._held[key_id] = _Held(key, began)
        self._held.move_to_end(key_id)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return key
