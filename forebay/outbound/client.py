"""The client: one connection a request, every hop judged, everything counted and timed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import httpcore
import httpx

from forebay import __version__
from forebay.outbound.body import read_body
from forebay.outbound.dial import HeadMeter, PinnedDial
from forebay.outbound.errors import (
    BrokenAnswerError,
    ConnectFailedError,
    TimedOutError,
    TlsFailedError,
    TooManyRedirectsError,
    UrlRefusedError,
)
from forebay.outbound.reach import Reach, Target
from forebay.outbound.resolver import Resolver, SystemResolver

USER_AGENT: Final = f"Forebay/{__version__}"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may take. Times in seconds, sizes in bytes.

    ``total_s``: for everything, from the wait for a place among ``connections`` to the last byte of
    the last hop. ``connect_s``: for a connection and, again, its TLS.
    """

    total_s: float = 15.0
    connect_s: float = 5.0
    head_bytes: int = 32 * 1024
    body_bytes: int = 20 * 2**20
    redirects: int = 0
    connections: int = 32


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. ``headers``: names in lower case, the first of each; ``url``: of the last hop."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class SafeClient:
    """Asks addresses that strangers name.

    Neither proxies nor credentials of the environment are used, no cookie is kept, and no
    connection serves two requests: what was judged for one is not lent to another.
    """

    def __init__(
        self, reach: Reach, bounds: Bounds | None = None, resolver: Resolver | None = None
    ) -> None:
        self.reach = reach
        self._bounds = bounds or Bounds()
        self._resolver = resolver or SystemResolver()
        self._places = asyncio.Semaphore(self._bounds.connections)
        self._tls = httpx.create_ssl_context()

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Get a URL with its body, following as many redirects as the bounds allow.

        ``headers`` go to the first host only. Raises OutboundError.
        """
        target = self.reach.target(url)
        async with self._in_time():
            for _ in range(self._bounds.redirects + 1):
                async with self._exchange("GET", target, headers or {}, b"") as response:
                    leads_to = _location(response)
                    if leads_to is None or self._bounds.redirects == 0:
                        return await self._read(response, target)
                following = self._follow(target, leads_to)
                headers = headers if target.same_origin(following) else None
                target = following
        raise TooManyRedirectsError("The answer leads on and on to other addresses.")

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Post and return what the answer's head says; its body is not read.

        A redirect is an answer like any other. Raises OutboundError.
        """
        target = self.reach.target(url)
        async with (
            self._in_time(),
            self._exchange("POST", target, headers, body) as response,
        ):
            return Reply(response.status, _headers(response.headers), b"", target.url)

    async def post_for_answer(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Post and return the whole answer, at most ``body_bytes`` of it.

        A redirect is an answer like any other. Raises OutboundError.
        """
        target = self.reach.target(url)
        async with (
            self._in_time(),
            self._exchange("POST", target, headers, body) as response,
        ):
            return await self._read(response, target)

    async def _read(self, response: httpcore.Response, target: Target) -> Reply:
        headers = _headers(response.headers)
        with _faults():
            body = await read_body(
                response.aiter_stream(),
                headers.get("content-encoding", ""),
                self._bounds.body_bytes,
            )
        return Reply(response.status, headers, body, target.url)

    def _follow(self, target: Target, location: str) -> Target:
        try:
            url = str(httpx.URL(target.url).join(location))
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise UrlRefusedError("The answer leads to something that is no URL.") from error
        following = self.reach.target(url)
        if target.scheme == "https" and following.scheme != "https":
            raise UrlRefusedError("The answer leads from https to http.")
        return following

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        total_s = self._bounds.total_s
        try:
            async with asyncio.timeout(total_s), self._places:
                yield
        except TimeoutError as error:
            raise TimedOutError(f"The answer did not come within {total_s:g} s.") from error

    @asynccontextmanager
    async def _exchange(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[httpcore.Response]:
        """Send one request over a connection of its own; yield the answer, its body unread."""
        meter = HeadMeter(self._bounds.head_bytes)
        request = self._request(method, target, headers, body)
        connection = httpcore.AsyncHTTPConnection(
            origin=request.url.origin,
            ssl_context=self._tls,
            network_backend=PinnedDial(self.reach, self._resolver, meter),
        )
        try:
            with _faults():
                response = await connection.handle_async_request(request)
            meter.end()
            yield response
        finally:
            await connection.aclose()

    def _request(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes
    ) -> httpcore.Request:
        sent = {
            "Host": target.authority,
            "User-Agent": USER_AGENT,
            "Accept-Encoding": "identity",  # what comes is bounded as it comes
            "Connection": "close",
            **headers,
        }
        if method == "POST":
            sent["Content-Length"] = str(len(body))
        url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.path
        )
        # the time as a whole is bounded outside; these say which part of it was too long
        limits = {"connect": self._bounds.connect_s}
        return httpcore.Request(
            method, url, headers=list(sent.items()), content=body, extensions={"timeout": limits}
        )


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return headers


def _location(response: httpcore.Response) -> str | None:
    if response.status not in _REDIRECTS:
        return None
    return _headers(response.headers).get("location")


@contextmanager
def _faults() -> Iterator[None]:
    """Turn the network's errors into ours; what they say of addresses stays in their chain."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise TimedOutError("The host took too long to be connected to.") from error
    except httpcore.ConnectError as error:
        if isinstance(error.__cause__, ssl.SSLError) or isinstance(error.__context__, ssl.SSLError):
            raise TlsFailedError("The host's TLS or its certificate is not in order.") from error
        raise ConnectFailedError("The host could not be connected to.") from error
    except (httpcore.ProtocolError, httpcore.NetworkError, ssl.SSLError) as error:
        raise BrokenAnswerError("The host's answer broke off, or is not HTTP.") from error
