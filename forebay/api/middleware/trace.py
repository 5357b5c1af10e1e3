"""Every request has a place in a trace: its caller's, else one of its own.

In with ``traceparent``, out with ``traceparent`` and ``traceresponse``, into every log line of the
request, and with its task to the worker.
"""

from __future__ import annotations

from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.api.middleware.raw_headers import values_of
from forebay.core.trace import Trace, current_trace, new_trace, read_trace

HEADER: Final = "traceparent"
OUT: Final = (HEADER, "traceresponse")
"""The second is what the next version of the specification names it in a response."""

_OUT: Final = tuple(name.encode() for name in OUT)


class TraceMiddleware:
    """Reads or begins the trace, and says it where it is looked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = _trace_of(values_of(scope, HEADER.encode()))

        async def send_with_trace(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = str(trace).encode()
                marks = [(name, told) for name in _OUT]
                message["headers"] = [*message.get("headers", ()), *marks]
            await send(message)

        token = current_trace.set(trace)
        bound = structlog.contextvars.bind_contextvars(
            trace_id=trace.trace_id, span_id=trace.span_id
        )
        try:
            await self._app(scope, receive, send_with_trace)
        finally:
            structlog.contextvars.reset_contextvars(**bound)
            current_trace.reset(token)


def _trace_of(given: list[bytes]) -> Trace:
    caller = read_trace(given[0].decode("latin-1").strip()) if len(given) == 1 else None
    return new_trace() if caller is None else caller.child()
