"""Every request has a place in a trace: its caller's, else one of its own; and it is a span of it.

In with ``traceparent`` and ``tracestate``, out with ``traceparent`` and ``traceresponse``, into
every log line of the request, and with its task to the worker.
"""

from __future__ import annotations

import time
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.api.middleware.access_log import METHODS, QUIET, UNMATCHED
from forebay.api.middleware.raw_headers import values_of
from forebay.core.trace import Trace, current_trace, read_trace
from forebay.ops.metrics import OTHER
from forebay.ops.spans import NO_SPANS, Span, SpanKind, Spans
from forebay.ops.telemetry import begin_trace

HEADER: Final = "traceparent"
STATE: Final = "tracestate"
OUT: Final = (HEADER, "traceresponse")
"""The second is what the next version of the specification names it in a response."""

_OUT: Final = tuple(name.encode() for name in OUT)
_FAULT: Final = 500
"""From here on a status is the server's fault, and so the span's."""


class TraceMiddleware:
    """Reads or begins the trace, and says it where it is looked for."""

    def __init__(self, app: ASGIApp, spans: Spans = NO_SPANS, sample: float = 1.0) -> None:
        self._app = app
        self._spans = spans
        self._sample = sample

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = _caller_of(scope)
        trace = begin_trace(self._spans, self._sample) if caller is None else caller.child()
        began, status = time.time(), 0

        async def send_with_trace(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
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
            if self._spans.on and trace.sampled and scope["path"] not in QUIET:
                parent = None if caller is None else caller.span_id
                self._spans.add([_span(scope, trace, parent, began, status)])


def _caller_of(scope: Scope) -> Trace | None:
    given = values_of(scope, HEADER.encode())
    if len(given) != 1:
        return None
    state = b",".join(values_of(scope, STATE.encode()))
    return read_trace(given[0].decode("latin-1").strip(), state.decode("latin-1"))


def _span(scope: Scope, place: Trace, parent: str | None, began: float, status: int) -> Span:
    """Return a request as a span, to the last byte of its answer."""
    route = getattr(scope.get("route"), "path", UNMATCHED)
    method = scope["method"] if scope["method"] in METHODS else OTHER
    return Span(
        f"{method} {route}",
        place,
        parent,
        began,
        time.time(),
        SpanKind.SERVER,
        str(status) if status >= _FAULT or not status else "",
        {"http.request.method": method, "http.route": route, "http.response.status_code": status},
    )
