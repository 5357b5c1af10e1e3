"""A body that drips in is refused in time, in the form of its route."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.api.connections.protocol import LEAST_BYTES_A_SECOND
from forebay.core.errors import ReceiveTimeoutError


class ReceiveDeadlineMiddleware:
    """Raises ReceiveTimeoutError, at the route's read, for a body that takes too long.

    It has ``receive_s`` from the first read, and longer where it is large: a second more for each
    ``LEAST_BYTES_A_SECOND`` that have come.
    """

    def __init__(self, app: ASGIApp, receive_s: float) -> None:
        self._app = app
        self._receive_s = receive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its reads bounded, until its body is whole."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        until_s: float | None = None
        whole = False

        async def receive_in_time() -> Message:
            nonlocal until_s, whole
            if whole:
                return await receive()
            if until_s is None:
                until_s = asyncio.get_running_loop().time() + self._receive_s
            try:
                async with asyncio.timeout_at(until_s):
                    message = await receive()
            except TimeoutError as error:
                raise ReceiveTimeoutError(
                    f"the body was not whole after {self._receive_s:g} s, and came at less than "
                    f"{LEAST_BYTES_A_SECOND} bytes a second"
                ) from error
            until_s += len(message.get("body", b"")) / LEAST_BYTES_A_SECOND
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)
