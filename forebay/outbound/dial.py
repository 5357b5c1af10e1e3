"""The connection itself: a host is resolved once, judged, and dialled by the address judged.

This is the innermost place where a name becomes a socket, so no second resolution can differ from
the one that was looked at. TLS still goes by the name.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, Final

import httpcore

from forebay.outbound.addresses import Address, parse_address
from forebay.outbound.errors import ConnectFailedError, TooLargeError
from forebay.outbound.reach import Reach
from forebay.outbound.resolver import Resolver

MOST_TRIED: Final = 4
"""Addresses of one host that are dialled before giving up."""

READ_BYTES: Final = 16 * 1024
"""Of one read. What is read at once is parsed at once, and the event loop waits meanwhile: a body
in chunks of one byte is some thousands of them.
"""


class HeadMeter:
    """Counts what comes until the answer's head is whole: heads have no length of their own."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._over = False

    def end(self) -> None:
        """The head is whole; who reads the body counts that."""
        self._over = True

    def allow(self, wanted: int) -> int:
        """Return how many bytes may be read now. Raises TooLargeError."""
        if self._over:
            return min(wanted, READ_BYTES)
        if self._left <= 0:
            raise TooLargeError("The head of the answer is too large.")
        return min(wanted, READ_BYTES, self._left)

    def count(self, read: int) -> None:
        """Take note of bytes that came."""
        self._left -= read


class MeteredStream(httpcore.AsyncNetworkStream):
    """A connection whose incoming bytes are counted until the head is whole, under TLS too."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, meter: HeadMeter) -> None:
        self._stream = stream
        self._meter = meter

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read as far as the meter allows."""
        chunk = await self._stream.read(self._meter.allow(max_bytes), timeout)
        self._meter.count(len(chunk))
        return chunk

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Go on in TLS; the meter then counts what is inside."""
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise
        return MeteredStream(stream, self._meter)

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the connection."""
        return self._stream.get_extra_info(info)


class PinnedDial(httpcore.AsyncNetworkBackend):
    """Dials for one request."""

    def __init__(self, reach: Reach, resolver: Resolver, meter: HeadMeter) -> None:
        self._reach = reach
        self._resolver = resolver
        self._meter = meter
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to an address of ``host`` that was judged, and to no other.

        Raises AddressRefusedError, UrlRefusedError (the port), NameUnknownError,
        ConnectFailedError.
        """
        self._reach.check_port(port)
        literal = parse_address(host)
        addresses = [literal] if literal is not None else await self._resolver(host, port)
        self._reach.check_addresses(host, addresses)
        chosen = in_turn(addresses)[:MOST_TRIED]
        share = None if timeout is None else timeout / len(chosen)
        for address in chosen:
            try:
                stream = await self._network.connect_tcp(
                    str(address), port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # the next address may answer; that none did is said below
            return MeteredStream(stream, self._meter)
        raise ConnectFailedError("The host could not be connected to.")


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with families alternating: one of the two is often not connected."""
    first = [one for one in addresses if one.version == addresses[0].version]
    rest = [one for one in addresses if one.version != addresses[0].version]
    pairs = chain.from_iterable(zip_longest(first, rest))
    return [one for one in pairs if one is not None]
