"""A request's body may have so many bytes and no more, whatever its headers claim."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.core.errors import BodyTooLargeError


class BodyLimitMiddleware:
    """Raises BodyTooLargeError at the route's first read of a body over the limit.

    A Content-Length over it is refused before a byte is read; a body without one is counted while
    it streams.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its reads counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("Content-Length", "")
        announced = int(declared) if declared.isdecimal() else 0
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            self._check(announced)
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                self._check(received)
            return message

        await self._app(scope, receive_counted, send)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise BodyTooLargeError(
                f"the body has {size} bytes or more, the limit is {self._max_bytes}"
            )
