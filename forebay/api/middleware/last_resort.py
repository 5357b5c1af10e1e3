"""An error that nobody foresaw becomes a 500 in the contract's form, and a line in the log."""

from __future__ import annotations

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.api.error_forms import error_response
from forebay.core.errors import ForebayError

log = structlog.get_logger(__name__)


class LastResortMiddleware:
    """Innermost of the middlewares, so that even this response has a request id and is counted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            log.exception("request.failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # too late for a status: the server must cut the connection
            answer = error_response(scope["path"], ForebayError("internal error"))
            await answer(scope, receive, send)
