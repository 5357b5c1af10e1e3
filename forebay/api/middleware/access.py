"""Nobody comes further than this without being a caller who may: before a byte of the body."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from forebay.access.caller import ANONYMOUS
from forebay.access.gate import Gate
from forebay.access.knock import Knock
from forebay.api.error_forms import error_response
from forebay.core.errors import ForebayError
from forebay.ops.metrics import Metrics

KNOWN = "known"
"""In metrics: somebody with a key or a token."""

CALLER = "caller"
"""Where a request's state has its caller."""


class AccessMiddleware:
    """Asks the gate, and hands the caller on in the request's state; open paths have none."""

    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with the refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        peer = client[0] if client else None
        knock = Knock(scope["method"], _path(scope), scope["headers"], peer)
        try:
            caller = await self._gate.admit(knock)
        except ForebayError as error:
            self._metrics.refused.labels(error.code).inc()
            answer = error_response(scope["path"], error)
            await answer(scope, receive, send)
            return
        if caller is not None:
            kind = ANONYMOUS.name if caller.name == ANONYMOUS.name else KNOWN
            self._metrics.callers.labels(kind).inc()
        scope.setdefault("state", {})[CALLER] = caller
        await self._app(scope, receive, send)


def _path(scope: Scope) -> str:
    """Return the path that routes are matched by: without what the app is mounted under."""
    path: str = scope["path"]
    rest = path.removeprefix(scope.get("root_path", ""))
    return rest if rest.startswith("/") else path
