"""The proxy does what networks do, on real sockets, and never what they do not: change bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.chaos.proxy import BOTH, FAIR, Proxy, Way, Weather

WAIT_S = 30


@dataclass
class Echo:
    """A server that says back what it hears, and remembers it."""

    port: int = 0
    heard: bytearray = field(default_factory=bytearray)
    open: int = 0
    serving: list[asyncio.Task[None]] = field(default_factory=list)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while chunk := await reader.read(65_536):
                self.heard += chunk
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.transport.abort()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.accept, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(WAIT_S), Proxy(echo.port).listening() as proxy:
        try:
            yield proxy, echo
        finally:
            server.close()
            for task in echo.serving:
                task.cancel()
            await asyncio.gather(*echo.serving, return_exceptions=True)


@asynccontextmanager
async def connected(
    proxy: Proxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    """Whether neither a byte nor an end comes for a while."""
    try:
        await asyncio.wait_for(reader.read(1), 0.3)
    except TimeoutError:
        return True
    return False


async def test_bytes_pass_unchanged_and_in_order_in_any_fair_or_slow_weather() -> None:
    content = bytes(range(256)) * 12_000
    async with proxied() as (proxy, _), connected(proxy) as (reader, writer):
        await until(lambda: proxy.links)
        told: list[bytes] = []

        async def listen() -> None:
            while sum(map(len, told)) < len(content):
                told.append(await reader.read(65_536))

        listening = asyncio.create_task(listen())
        weathers = [FAIR, Weather(jitter_s=0.02), Weather(bytes_per_s=20_000_000), FAIR]
        step = len(content) // len(weathers)
        for at, weather in enumerate(weathers):
            proxy.change(weather)
            writer.write(content[at * step : (at + 1) * step])
            await writer.drain()
        await listening
        assert b"".join(told) == content


async def test_delay_and_a_narrow_link_take_their_time() -> None:
    async with proxied() as (proxy, _), connected(proxy) as (reader, writer):
        for weather, least_s in ((Weather(delay_s=0.1), 0.2), (Weather(bytes_per_s=1000), 0.15)):
            await until(lambda: proxy.links)
            proxy.change(weather)
            began = time.monotonic()
            writer.write(bytes(100))
            await reader.readexactly(100)
            assert time.monotonic() - began >= least_s


async def test_a_cut_is_told_to_both_ends_at_once() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.cut(proxy.links)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        await until(lambda: echo.open == 0 and not proxy.links)


async def test_a_half_open_link_is_silent_to_both_and_reset_when_the_weather_clears() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as (reader, writer):
        await until(lambda: proxy.links and echo.open)
        proxy.change(Weather(swallowed=BOTH))
        writer.write(b"lost")
        assert await is_silent(reader)
        assert bytes(echo.heard) == b""
        assert echo.open == 1
        async with connected(proxy) as (other, later):
            later.write(b"lost too")
            assert await is_silent(other)
            proxy.change(FAIR)
            for one in (reader, other):
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await one.readexactly(1)
        assert bytes(echo.heard) == b""


async def test_swallowed_replies_leave_the_server_having_heard() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as (reader, writer):
        await until(lambda: proxy.links)
        proxy.change(Weather(swallowed=frozenset({Way.DOWN})))
        writer.write(b"done")
        await until(lambda: bytes(echo.heard) == b"done")
        assert await is_silent(reader)


async def test_a_stalled_link_gives_everything_later_in_order() -> None:
    async with proxied() as (proxy, _), connected(proxy) as (reader, writer):
        await until(lambda: proxy.links)
        proxy.change(Weather(stalled=True))
        writer.write(b"first ")
        assert await is_silent(reader)
        writer.write(b"second")
        proxy.change(FAIR)
        assert await reader.readexactly(12) == b"first second"


@pytest.mark.parametrize("left", [0, 3])
async def test_a_reply_is_cut_in_its_middle(left: int) -> None:
    async with proxied() as (proxy, echo), connected(proxy) as (reader, writer):
        await until(lambda: proxy.links)
        present = list(proxy.links)
        proxy.change(Weather(cut_reply_after=left), some=lambda: present)
        writer.write(b"abcdef")
        told = bytearray()
        try:
            while chunk := await reader.read(100):
                told += chunk
        except ConnectionError:
            pass
        assert bytes(told) in (b"abcdef"[:left], b"")  # a reset may overtake what was sent
        assert bytes(echo.heard) == b"abcdef"
        async with connected(proxy) as (other, later):
            later.write(b"fine")
            assert await other.readexactly(4) == b"fine"


async def test_refused_connections_are_reset_and_others_go_on() -> None:
    async with proxied() as (proxy, _), connected(proxy) as (reader, writer):
        await until(lambda: proxy.links)
        proxy.change(Weather(refusing=True))
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        async with connected(proxy) as (other, _):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await other.readexactly(1)


async def test_a_server_that_is_not_there_resets_the_client() -> None:
    async with proxied() as (proxy, echo):
        proxy._server_port = 1
        async with connected(proxy) as (reader, _):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        assert echo.open == 0
