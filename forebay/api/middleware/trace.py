"""Every request has a place in a trace: its caller's, else one of its own.

In with ``traceparent``, out with ``traceparent`` and ``traceresponse``, into every log line of the
request, and with its task to the worker.
"""

from __future__ import annotations

from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.core.trace import Trace, current_trace, new_trace, read_trace

HEADER: Final = "traceparent"
OUT: Final = (HEADER, "traceresponse")
"""The second is what the next version of the specification names it in a response."""


class TraceMiddleware:
    """Reads or begins the trace, and says it where it is looked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = _trace_of(Headers(scope=scope))

        async def send_with_trace(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in OUT:
                    headers[name] = str(trace)
            await send(message)

        token = current_trace.set(trace)
        try:
            with structlog.contextvars.bound_contextvars(
                trace_id=trace.trace_id, span_id=trace.span_id
            ):
                await self._app(scope, receive, send_with_trace)
        finally:
            current_trace.reset(token)


def _trace_of(headers: Headers) -> Trace:
    given = headers.getlist(HEADER)
    caller = read_trace(given[0].strip()) if len(given) == 1 else None
    return new_trace() if caller is None else caller.child()
