"""A path with a slash too many or too few leads to the right one.

The framework's own redirect names scheme and host as they have reached it: behind a proxy that ends
TLS that is ``http``, over which a client would send its key again, and the host is whatever a
client says. This one is relative to where the client is.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.routing import Match
from starlette.types import Receive, Scope, Send


def install_slashes(app: FastAPI) -> None:
    """Have ``app`` lead to the right path, in the framework's place."""
    router = app.router
    no_such_route, router.redirect_slashes = router.default, False

    async def lead(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        right = {**scope, "path": path[:-1] if path.endswith("/") else f"{path}/"}
        if any(route.matches(right)[0] is not Match.NONE for route in router.routes):
            answer = RedirectResponse(_reference(path, scope["query_string"]))
            await answer(scope, receive, send)
        else:
            await no_such_route(scope, receive, send)

    router.default = lead


def _reference(path: str, query: bytes) -> str:
    """Return the way to the right path from ``path``."""
    if path.endswith("/"):
        found = "../" + quote(path[:-1].rpartition("/")[2], safe="")
    else:
        found = "./" + quote(path.rpartition("/")[2], safe="") + "/"
    return f"{found}?{query.decode('latin-1')}" if query else found
