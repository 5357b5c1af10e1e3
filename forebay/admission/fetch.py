"""Pictures by URL: fetched from where strangers say, kept for a short while, asked for anew."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from forebay.core.errors import ImageUrlError
from forebay.outbound.client import Reply, SafeClient
from forebay.outbound.errors import OutboundError

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})")
_ACCEPT: Final = "image/webp,image/png,image/jpeg,image/gif,image/bmp,*/*;q=0.1"

_LONGEST_VALIDATOR: Final = 1024


@dataclass(frozen=True, slots=True)
class CacheBounds:
    """``most_bytes`` of pictures are kept, 0 for none; each is taken unasked for ``fresh_s``."""

    most_bytes: int = 64 * 2**20
    fresh_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Kept:
    content: bytes
    fresh_until: float
    validators: Mapping[str, str]


class PictureFetcher:
    """Fetches pictures. What a host says of them is not believed; they are only bytes here.

    A picture is kept by its URL: taken as it is while fresh, then validated (``ETag``,
    ``Last-Modified``), and dropped, the longest unused first, when there are too many bytes.
    """

    def __init__(
        self,
        client: SafeClient,
        bounds: CacheBounds | None = None,
        *,
        most_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._bounds = bounds or CacheBounds()
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self.most_bytes = most_bytes
        """Of one picture; the client's own bound, told to those who must make room for it."""

    async def fetch(self, url: str, param: str) -> bytes:
        """Return the bytes at ``url``.

        Raises:
            ImageUrlError: it may not be asked, or what came is no answer; the message is fit for
                the client and holds nothing of what an inside server said.
        """
        known = self._kept.get(url)
        if known is not None and self._clock() < known.fresh_until:
            self._kept.move_to_end(url)
            return known.content
        headers = {"Accept": _ACCEPT, **(known.validators if known else {})}
        try:
            reply = await self._client.get(url, headers)
        except OutboundError as error:
            raise ImageUrlError(f"the picture was not fetched: {error.message}", param=param) from (
                error
            )
        if known is not None and reply.status == _NOT_MODIFIED:
            self._keep(url, replace(known, fresh_until=self._fresh_until(reply)))
            return known.content
        self._drop(url)
        if reply.status != _OK:
            raise ImageUrlError(
                f"the picture was not fetched: its host answered {reply.status}", param=param
            )
        if self._may_keep(reply):
            self._keep(url, _Kept(reply.body, self._fresh_until(reply), _validators(reply, url)))
        return reply.body

    def _may_keep(self, reply: Reply) -> bool:
        return (
            "no-store" not in _cache_control(reply) and len(reply.body) <= self._bounds.most_bytes
        )

    def _fresh_until(self, reply: Reply) -> float:
        control = _cache_control(reply)
        told = _MAX_AGE.search(control)
        age = min(self._bounds.fresh_s, float(told[1])) if told else self._bounds.fresh_s
        return self._clock() + (0.0 if "no-cache" in control else age)

    def _keep(self, url: str, kept: _Kept) -> None:
        self._drop(url)
        self._kept[url] = kept
        self._bytes += len(kept.content)
        while self._bytes > self._bounds.most_bytes:
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
