"""Pages with a port of their own: what is met at its root, beside the same API as everywhere."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class FrontPageMiddleware:
    """Has ``/`` on a page's own port answered as that page.

    ``pages``: port -> path. A page refers to everything by relative addresses of one level, so it
    is the same at the root of a port as at its own path.
    """

    def __init__(self, app: ASGIApp, pages: Mapping[int, str]) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, to the port's page where it asks for the root."""
        if scope["type"] == "http" and scope["path"] == "/" and scope.get("server"):
            page = self._pages.get(scope["server"][1])
            if page is not None:
                scope = {**scope, "path": page, "raw_path": page.encode()}
        await self._app(scope, receive, send)
