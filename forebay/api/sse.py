"""Server-sent events: their form on the wire, and a response that sends them.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from forebay.api.disconnect import end, gone

log = structlog.get_logger(__name__)

DONE: Final = b"data: [DONE]\n\n"
"""What OpenAI clients take for the stream's end."""

KEEP_ALIVE: Final = b": waiting\n\n"
"""A comment: readers skip it, proxies see that the stream lives."""

_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: ``json.dumps`` makes an encoder for each call that wishes for something."""

HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold the tokens back
}


def event(content: Any, *, name: str | None = None, stream_id: str | None = None) -> bytes:
    """Return one event with a JSON content; ``stream_id`` is the place that a client resumes at."""
    head = f"event: {name}\n" if name else ""
    head += f"id: {stream_id}\n" if stream_id else ""
    text = _COMPACT(content)
    return f"{head}data: {text}\n\n".encode()


def reconnect_after(seconds: float) -> bytes:
    """Return the field that says how long a client waits before it connects again."""
    return f"retry: {round(seconds * 1000)}\n\n".encode()


class EventStreamResponse(Response):
    """Sends events as they come, and a comment when none comes for ``keep_alive_s``.

    ``on_gone`` is awaited when the client hangs up, or reads nothing for ``send_timeout_s``; not
    when the server stops, for then the answer is still wanted.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        *,
        on_gone: Callable[[], Awaitable[object]],
        keep_alive_s: float,
        send_timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]  # of the empty body that Response assumed
        self._events = events
        self._on_gone = on_gone
        self._keep_alive_s = keep_alive_s
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or as many as the client stays for."""
        del scope
        line = _Line(send, self._send_timeout_s)
        writing = asyncio.create_task(self._write(line))
        beating = asyncio.create_task(line.keep_alive(self._keep_alive_s))
        watching = asyncio.create_task(gone(receive))
        try:
            await asyncio.wait({writing, beating, watching}, return_when=asyncio.FIRST_COMPLETED)
            for one in (writing, beating):
                if one.done():
                    one.result()
            if not writing.done():
                await self._on_gone()
        except TimeoutError:
            log.info("stream.slow_reader")
            await self._on_gone()
        finally:
            await end(writing, beating, watching)

    async def _write(self, line: _Line) -> None:
        # one task for all events, not one for each: a token takes a tenth less
        async with aclosing(self._events):
            await line.begin(self.raw_headers)
            async for event in self._events:
                await line.send(event)
            await line.end()


class _Line:
    """What is sent to one client, a piece after the other; each is taken within ``timeout_s``."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._sending = asyncio.Lock()

    async def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(self, piece: bytes) -> None:
        """Send an event. Raises TimeoutError where the client does not take it."""
        async with self._sending, asyncio.timeout(self._timeout_s):
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        self._sent_at = self._loop.time()

    async def end(self) -> None:
        self._sent_at = self._loop.time()  # no comment is begun from here on
        async with self._sending:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def keep_alive(self, every_s: float) -> None:
        """Send a comment whenever nothing was sent for so long. Raises as ``send``; never ends."""
        while True:
            quiet_s = self._loop.time() - self._sent_at
            if quiet_s < every_s:
                await asyncio.sleep(every_s - quiet_s)
            else:
                await self.send(KEEP_ALIVE)
