"""Pictures by URL: fetched from where strangers say, kept for a short while, asked for anew."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from forebay.admission.held import HeldBytes
from forebay.core.errors import DoorFullError, ImageUrlError
from forebay.outbound.client import Reply, SafeClient
from forebay.outbound.errors import AddressRefusedError, NameUnknownError, OutboundError

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})")
_ACCEPT: Final = "image/webp,image/png,image/jpeg,image/gif,image/bmp,*/*;q=0.1"

_LONGEST_VALIDATOR: Final = 1024


@dataclass(frozen=True, slots=True)
class FetchBounds:
    """What fetching may take.

    ``most_bytes``: of one picture, as the client has it. ``places``: pictures at once, and
    ``wait_s`` how long a further one waits for a place. ``cache_bytes`` of pictures are kept, 0 for
    none; each is taken unasked for ``fresh_s``.
    """

    most_bytes: int
    places: int = 32
    wait_s: float = 10.0
    cache_bytes: int = 64 * 2**20
    fresh_s: float = 60.0


class _NotFetchedError(Exception):
    """Why there is no picture, in words fit for the client."""


@dataclass(frozen=True, slots=True)
class _Kept:
    content: bytes
    fresh_until: float
    validators: Mapping[str, str]


class _Flight:
    """A picture that is being fetched, and how many requests wait for it."""

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self.waiting = 0


class PictureFetcher:
    """Fetches pictures. What a host says of them is not believed; they are only bytes here.

    A picture is kept by its URL: taken as it is while fresh, then validated (``ETag``,
    ``Last-Modified``), and dropped, the longest unused first, when there are too many bytes. Many
    requests for one URL at a time are one fetch.
    """

    def __init__(
        self,
        client: SafeClient,
        held: HeldBytes,
        bounds: FetchBounds,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._held = held
        self._bounds = bounds
        self._clock = clock
        self._places = asyncio.Semaphore(bounds.places)
        self._flights: dict[str, _Flight] = {}
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of the pictures that are kept."""
        return self._bytes

    def is_fresh(self, url: str) -> bool:
        """Whether ``fetch`` would answer from what is kept, without asking anybody."""
        known = self._kept.get(url)
        return known is not None and self._clock() < known.fresh_until

    async def fetch(self, url: str, param: str) -> bytes:
        """Return the bytes at ``url``. ``param``: the request's field, for messages.

        Raises:
            ImageUrlError: it may not be asked, or what came is no answer; the message is fit for
                the client and holds nothing of what an inside server said.
            DoorFullError: too much is being fetched at present.
        """
        known = self._kept.get(url)
        if known is not None and self._clock() < known.fresh_until:
            self._kept.move_to_end(url)
            return known.content
        try:
            return await self._join(url)
        except _NotFetchedError as error:
            raise ImageUrlError(f"the picture was not fetched: {error}", param=param) from error

    async def _join(self, url: str) -> bytes:
        flight = self._flights.get(url)
        if flight is None:
            flight = self._flights[url] = _Flight(asyncio.create_task(self._fly(url)))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:  # it has ended, or nobody is left to whom it matters
                self._flights.pop(url)
                flight.task.cancel()

    async def _fly(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(self._bounds.wait_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise DoorFullError("too many pictures are being fetched at present") from error
        try:
            with self._held.hold() as room:
                room.grow_to(self._bounds.most_bytes)  # how large it is shows only at its end
                return await self._ask(url)
        finally:
            self._places.release()

    async def _ask(self, url: str) -> bytes:
        known = self._kept.get(url)
        headers = {"Accept": _ACCEPT, **(known.validators if known else {})}
        try:
            reply = await self._client.get(url, headers)
        except (NameUnknownError, AddressRefusedError) as error:
            # which of the two it is would tell strangers the names of machines inside
            raise _NotFetchedError("the host has no address of the public internet") from error
        except OutboundError as error:
            raise _NotFetchedError(error.message) from error
        if known is not None and reply.status == _NOT_MODIFIED:
            self._keep(url, replace(known, fresh_until=self._fresh_until(reply)))
            return known.content
        self._drop(url)
        if reply.status != _OK:
            raise _NotFetchedError(f"its host answered {reply.status}")
        if self._may_keep(reply):
            self._keep(url, _Kept(reply.body, self._fresh_until(reply), _validators(reply, url)))
        return reply.body

    def _may_keep(self, reply: Reply) -> bool:
        control = _cache_control(reply)
        one_clients = "no-store" in control or "private" in control
        return not one_clients and len(reply.body) <= self._bounds.cache_bytes

    def _fresh_until(self, reply: Reply) -> float:
        control = _cache_control(reply)
        told = _MAX_AGE.search(control)
        age = min(self._bounds.fresh_s, float(told[1])) if told else self._bounds.fresh_s
        return self._clock() + (0.0 if "no-cache" in control else age)

    def _keep(self, url: str, kept: _Kept) -> None:
        self._drop(url)
        self._kept[url] = kept
        self._bytes += len(kept.content)
        while self._bytes > self._bounds.cache_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, url: str) -> None:
        dropped = self._kept.pop(url, None)
        if dropped is not None:
            self._bytes -= len(dropped.content)


def _cache_control(reply: Reply) -> str:
    return reply.headers.get("cache-control", "").lower()


def _validators(reply: Reply, url: str) -> dict[str, str]:
    """Return what asks whether a picture has changed; none where another URL answered."""
    if reply.url != url:
        return {}
    given = {
        "If-None-Match": reply.headers.get("etag", ""),
        "If-Modified-Since": reply.headers.get("last-modified", ""),
    }
    return {name: value for name, value in given.items() if 0 < len(value) <= _LONGEST_VALIDATOR}
