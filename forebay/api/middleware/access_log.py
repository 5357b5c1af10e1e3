"""One log line and one count a request: method, path, status, time, size, caller.

Never what was asked.
"""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.api.middleware.access import CALLER
from forebay.ops.metrics import OTHER, Metrics

log = structlog.get_logger(__name__)

QUIET = frozenset({"/healthz", "/health", "/ready", "/metrics"})
"""Asked every few seconds by machines: counted, but logged at debug level."""

UNMATCHED = "unmatched"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""A client may send any word in their place."""


class AccessLogMiddleware:
    """Logs and counts each request when its response has ended."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        seen = {"status": 0, "bytes_out": 0}

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
            elif message["type"] == "http.response.body":
                seen["bytes_out"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_and_count)
        finally:
            self._record(scope, seen, time.monotonic() - started)

    def _record(self, scope: Scope, seen: dict[str, int], seconds: float) -> None:
        # the route's template, not the path: a label must not take as many values as clients like
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        self._metrics.requests.labels(route, method, str(seen["status"])).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        caller = scope.get("state", {}).get(CALLER)
        write = log.debug if scope["path"] in QUIET else log.info
        write(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=seen["status"],
            ms=round(seconds * 1000, 1),
            bytes_out=seen["bytes_out"],
            caller=caller.name if caller else None,
        )
