"""Clients that hang up anywhere in a request: nothing of theirs is held once they are gone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from PIL import Image

from forebay.api.app import create_app
from forebay.api.connections.protocol import ConnectionBounds, bounded_protocol
from forebay.core.errors import ForebayError
from tests.api.door import Door, data_url, eventually, working

CLIENTS = 60


def picture(seed: int) -> bytes:
    """Return a picture that nobody else sends, so that it is decoded and stored."""
    out = io.BytesIO()
    Image.frombytes("RGB", (96, 96), random.Random(seed).randbytes(96 * 96 * 3)).save(out, "JPEG")
    return out.getvalue()


def multipart(path: str, content: bytes, more: bytes = b"") -> bytes:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + content
        + b'\r\n--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nWhat?\r\n--b--\r\n'
    )
    kind = b"multipart/form-data; boundary=b"
    return posted(path, kind, body, more)


def posted(path: str, kind: bytes, body: bytes, more: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
    return head + b"Content-Type: " + kind + b"\r\n" + more + b"\r\n" + body


def question(chance: random.Random, seed: int) -> bytes:
    """Return a request, of any of the ways in."""
    content = picture(seed)
    words = f'"content": [{{"type": "text", "text": "{seed}?"}}, {{"type": "image_url", '
    words += f'"image_url": {{"url": "{data_url(content)}"}}}}]'
    chat = '{"model": "glm-4v-flash", "messages": [{"role": "user", ' + words + "}]"
    asked = chance.choice(
        [
            multipart("/predict", content),
            multipart("/v1/tasks", content, b"Prefer: wait=5\r\n"),
            multipart("/v1/tasks", content, b"Idempotency-Key: k%d\r\n" % chance.randrange(5)),
            multipart("/v1/infer", content, b"Expect: 100-continue\r\n"),
            posted("/v1/chat/completions", b"application/json", (chat + "}").encode()),
            posted(
                "/v1/chat/completions", b"application/json", (chat + ', "stream": true}').encode()
            ),
        ]
    )
    return asked * chance.choice([1, 1, 2])  # two at a time: pipelined


async def hang_up(port: int, chance: random.Random, seed: int) -> None:
    asked = question(chance, seed)
    cut = chance.choice([len(asked), chance.randrange(1, len(asked))])
    with contextlib.suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked[:cut])
        await asyncio.sleep(chance.choice([0, 0.001, 0.01, 0.05, 0.2]))
        if chance.random() < 0.3:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(100)
        if chance.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()


@asynccontextmanager
async def served(door: Door) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """Serve the door as the product does, its connections bounded."""

    def tell(error: ForebayError) -> None:
        del error

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(door.services),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        http=bounded_protocol(ConnectionBounds(), tell),
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    try:
        yield listener.getsockname()[1], server
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize("seed", [1, 2])
async def test_who_hangs_up_leaves_nothing_held(door: Door, seed: int) -> None:
    chance, services = random.Random(seed), door.services
    async with served(door) as (port, server), working(door) as worker:
        for start in range(0, CLIENTS, 12):
            await asyncio.gather(
                *(hang_up(port, chance, seed * 1000 + at) for at in range(start, start + 12))
            )
        async with asyncio.timeout(60):
            while server.server_state.tasks or server.server_state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        load = services.load
        assert services.held.now == 0
        assert services.decoders.busy == 0
        assert (load._coming.tasks, load._coming.tokens) == (0, 0)
        assert not services.images._under_way
        assert not services.turns.locked()
        assert not services.watch.watched
        assert not door.streams._reader._subscriptions
        assert worker.seen
        await eventually(lambda: _nothing_waits(door))
        reply = await door.http.get("/healthz")
        assert reply.status_code == 200


async def _nothing_waits(door: Door) -> bool:
    return await door.waiting() == 0
