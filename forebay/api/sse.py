"""Server-sent events: their form on the wire, and a response that sends them.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
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

_END: Final = b""

HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold the tokens back
}


def event(content: Any, *, name: str | None = None, stream_id: str | None = None) -> bytes:
    """Return one event with a JSON content; ``stream_id`` is the place that a client resumes at."""
    head = f"event: {name}\n" if name else ""
    head += f"id: {stream_id}\n" if stream_id else ""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
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
        writing = asyncio.create_task(self._write(send))
        watching = asyncio.create_task(gone(receive))
        try:
            await asyncio.wait({writing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            else:
                await self._on_gone()
        except TimeoutError:
            log.info("stream.slow_reader")
            await self._on_gone()
        finally:
            await end(writing, watching)

    async def _write(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        upcoming = asyncio.ensure_future(self._next())
        try:
            while True:
                await asyncio.wait({upcoming}, timeout=self._keep_alive_s)
                if not upcoming.done():
                    await self._send(send, KEEP_ALIVE)
                    continue
                chunk = upcoming.result()
                if chunk == _END:
                    break
                upcoming = asyncio.ensure_future(self._next())
                await self._send(send, chunk)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await end(upcoming)
            await self._events.aclose()

    async def _next(self) -> bytes:
        return await anext(self._events, _END)

    async def _send(self, send: Send, chunk: bytes) -> None:
        async with asyncio.timeout(self._send_timeout_s):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
