"""An OpenAI-compatible server on a real socket that behaves, or misbehaves, as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from forebay.engine.warm_up import warm_up_request

WARM_UP_TEXT = warm_up_request()[0].messages[0].parts[1].text


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    at: float = 0.0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def asked(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def is_warm_up(self) -> bool:
        content = self.asked["messages"][0]["content"]
        return isinstance(content, list) and content[-1] == {"type": "text", "text": WARM_UP_TEXT}

    async def head(self, status: int = 200, **headers: str) -> None:
        named = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
        self.writer.write("\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode())
        await self.writer.drain()

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            await self._write(b"%x\r\n%s\r\n" % (len(part), part))

    async def end(self) -> None:
        await self._write(b"0\r\n\r\n")

    async def _write(self, content: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionResetError("the client has gone")  # uvloop would say RuntimeError
        self.writer.write(content)
        await self.writer.drain()

    async def whole(self, status: int, content: Any, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {"content_type": "application/json", "content_length": str(len(body)), **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
        self.writer.write("\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode() + body)
        await self.writer.drain()

    def cut(self) -> None:
        """End the connection in the middle of whatever was said."""
        self.writer.transport.abort()


Reply = Callable[[Exchange], Awaitable[None]]


def event(**chunk: Any) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


def delta(text: str = "", reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": reason}])


def usage(prompt: int, completion: int) -> bytes:
    return event(
        choices=[],
        usage={"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0},
    )


DONE = b"data: [DONE]\n\n"


def say(*texts: str, reason: str = "stop") -> Reply:
    """Answer as a server should."""

    async def reply(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(*(delta(text) for text in texts), delta("", reason))
        await exchange.send(usage(7, len(texts)), DONE)
        await exchange.end()

    return reply


def stream(*parts: bytes, ends: bool = True) -> Reply:
    """Send these bytes, then end the stream, or keep it open until the client goes."""

    async def reply(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(*parts)
        if ends:
            await exchange.end()
        else:
            await exchange.gone.wait()

    return reply


def refuse(status: int, message: Any = "no", **headers: str) -> Reply:
    content = message if isinstance(message, dict | bytes) else {"error": {"message": message}}
    return lambda exchange: exchange.whole(status, content, **headers)


def cut_after(*parts: bytes) -> Reply:
    async def reply(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(*parts)
        exchange.cut()

    return reply


async def silence(exchange: Exchange) -> None:
    """Take the request and say nothing, for ever."""
    await exchange.gone.wait()


@dataclass
class FakeUpstream:
    """``chat`` answers requests, ``warm_up`` those that ask whether it is well."""

    port: int = 0
    chat: Reply = field(default_factory=lambda: say("a", "b"))
    warm_up: Reply = field(default_factory=lambda: say("w", reason="length"))
    health: Reply = field(default_factory=lambda: refuse(200))
    models: Any = field(default_factory=lambda: {"data": [{"id": "the-model"}]})
    tls: ssl.SSLContext | None = None
    seen: list[Exchange] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[Exchange]:
        """Every request for an answer, those that ask whether it is well left out."""
        return [one for one in self.seen if one.path.endswith("completions") and not one.is_warm_up]

    @property
    def probes(self) -> list[Exchange]:
        """Every request that asks whether it is well."""
        return [one for one in self.seen if one.path.endswith("completions") and one.is_warm_up]

    def drop_all(self) -> None:
        """End every connection at once, as a crash does."""
        for writer in set(self._open):
            writer.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[FakeUpstream]:
        server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=2**26, ssl=self.tls
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.drop_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            exchange = await _read(reader, writer)
            self.seen.append(exchange)
            watching = asyncio.create_task(_watch(exchange))
            await self._reply(exchange)
            if not writer.is_closing():
                writer.close()
            watching.cancel()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)

    async def _reply(self, exchange: Exchange) -> None:
        if exchange.path.endswith("/health"):
            await self.health(exchange)
        elif exchange.path.endswith("/models"):
            listed = self.models
            await (listed(exchange) if callable(listed) else exchange.whole(200, listed))
        elif exchange.is_warm_up:
            await self.warm_up(exchange)
        else:
            await self.chat(exchange)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    pairs = [line.partition(":") for line in lines if line]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    at = asyncio.get_running_loop().time()
    return Exchange(first.split()[1], headers, body, reader, writer, at)


async def _watch(exchange: Exchange) -> None:
    """A client sends nothing after its request: when its side reads as ended, it has gone."""
    with contextlib.suppress(ConnectionError):
        await exchange.reader.read(1)
    exchange.gone.set()
