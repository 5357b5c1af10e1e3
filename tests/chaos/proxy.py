"""A TCP proxy that does to connections what networks do: real sockets, no mercy, no corruption.

Bytes that pass do so in order and unchanged; a link that has swallowed any never passes another,
as no network would. What is done is done to every link, to new ones too, or to some of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

CHUNK = 65_536
MOST_HELD = 2**20
"""Bytes on their way in one direction before its sender is read no further."""


class Way(Enum):
    """A direction: what the client says, or what the server replies."""

    UP = "up"
    DOWN = "down"


BOTH = frozenset(Way)


@dataclass(frozen=True, slots=True)
class Weather:
    """What a link does to the bytes that it is given.

    ``delay_s`` and at most ``jitter_s`` more to each chunk, order kept. ``bytes_per_s``: a narrow
    link. ``stalled``: bytes wait, and pass once it is over: a network that is away for a while.
    ``swallowed``: bytes vanish, ends of connections too, for as long as the link lives: a peer that
    is gone without a word. ``cut_reply_after``: the next reply is cut after so many bytes.
    ``refusing``: new connections are reset.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    stalled: bool = False
    swallowed: frozenset[Way] = frozenset()
    cut_reply_after: int | None = None
    refusing: bool = False


FAIR = Weather()


class Link:
    """One connection through the proxy."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        weather: Weather,
        chance: random.Random,
        number: int,
    ) -> None:
        self.weather = weather
        self.number = number
        self.passed = {Way.UP: 0, Way.DOWN: 0}
        self._writers = (client[1], server[1])
        self._ends = {Way.UP: (client[0], server[1]), Way.DOWN: (server[0], client[1])}
        self._swallows: set[Way] = set(weather.swallowed)
        self._changed = asyncio.Event()
        self._chance = chance

    def change(self, weather: Weather) -> None:
        """Let the weather change, also for bytes that are on their way."""
        self.weather = weather
        self._swallows |= weather.swallowed
        self._changed.set()

    @property
    def dead(self) -> bool:
        """Whether bytes were swallowed, so that nothing can pass any more."""
        return bool(self._swallows)

    def cut(self) -> None:
        """Reset both ends at once."""
        for writer in self._writers:
            _reset(writer)

    async def run(self) -> None:
        """Carry bytes until either end closes; a dead link holds still until it is cut."""
        pumps = [asyncio.create_task(_Pump(self, way).run()) for way in Way]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            while self.dead and not all(one.is_closing() for one in self._writers):
                await self._weather_changes()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.cut()

    async def _weather_changes(self) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await self._changed.wait()

    async def _until_passable(self, way: Way) -> None:
        while self.weather.stalled and way not in self._swallows:
            await self._weather_changes()


class _Pump:
    """One direction of a link."""

    def __init__(self, link: Link, way: Way) -> None:
        self._link = link
        self._way = way
        self._reader, self._writer = link._ends[way]
        self._held: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._moved = asyncio.Event()
        self._has_room = asyncio.Event()
        self._over = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take())
            group.create_task(self._give())

    async def _take(self) -> None:
        clock = asyncio.get_running_loop().time
        latest = 0.0
        with contextlib.suppress(ConnectionError):
            while chunk := await self._reader.read(CHUNK):
                weather = self._link.weather
                wait_s = weather.delay_s + self._link._chance.uniform(0, weather.jitter_s)
                latest = max(latest, clock() + wait_s)
                await self._hold(latest, chunk)
        self._over = True
        self._moved.set()

    async def _hold(self, due: float, chunk: bytes) -> None:
        self._held.append((due, chunk))
        self._bytes += len(chunk)
        self._moved.set()
        if self._bytes > MOST_HELD:
            self._has_room.clear()
            await self._has_room.wait()

    async def _give(self) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(ConnectionError):
            while chunk := await self._next():
                due, content = chunk
                await asyncio.sleep(max(0.0, due - clock()))
                await self._pass(content)
                self._bytes -= len(content)
                self._has_room.set()

    async def _next(self) -> tuple[float, bytes] | None:
        while not self._held:
            if self._over:
                await self._link._until_passable(self._way)
                return None
            self._moved.clear()
            await self._moved.wait()
        return self._held.popleft()

    async def _pass(self, content: bytes) -> None:
        link = self._link
        await link._until_passable(self._way)
        if self._way in link._swallows:
            return
        weather = link.weather
        if self._way is Way.DOWN and weather.cut_reply_after is not None:
            self._writer.write(content[: weather.cut_reply_after])
            await self._writer.drain()
            link.cut()
            return
        if not weather.bytes_per_s:
            await self._write(content)
            return
        step = max(1, round(weather.bytes_per_s / 20))
        for at in range(0, len(content), step):
            if link.weather.bytes_per_s:
                await asyncio.sleep(step / link.weather.bytes_per_s)
            await self._write(content[at : at + step])

    async def _write(self, content: bytes) -> None:
        self._writer.write(content)
        self._link.passed[self._way] += len(content)
        await self._writer.drain()


class Proxy:
    """Listens on a port of its own in front of ``server_port`` on this machine."""

    def __init__(self, server_port: int, seed: int = 0) -> None:
        self.port = 0
        self.links: set[Link] = set()
        self.accepted = 0
        self._server_port = server_port
        self._weather = FAIR
        self._chance = random.Random(seed)
        self._carrying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut(self.links)
            for task in self._carrying:
                task.cancel()
            await asyncio.gather(*self._carrying, return_exceptions=True)

    def change(self, weather: Weather, *, some: Callable[[], Iterable[Link]] | None = None) -> None:
        """Change the weather of ``some`` links, or of all and of those to come.

        Links that swallowed something are reset when the weather is fair again: whoever still
        waits behind one learns of it then, at the latest.
        """
        if some is None:
            self._weather = weather
        for link in list(self.links if some is None else some()):
            if weather == FAIR and link.dead:
                link.cut()
            link.change(weather)

    def cut(self, links: Iterable[Link]) -> None:
        """Reset these connections."""
        for link in list(links):
            link.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(carrying)
        carrying.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._weather.refusing:
            _reset(writer)
            return
        try:
            server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            _reset(writer)
            return
        link = Link((reader, writer), server, self._weather, self._chance, self.accepted)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer is told at once that the connection is no more."""
    if writer.is_closing():
        return
    with contextlib.suppress(OSError):
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
