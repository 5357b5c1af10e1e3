"""Routes that are asked thousands of times a second: the request in, the response out."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class PlainRoute(APIRoute):
    """A route whose function takes the request alone and returns the response.

    The framework solves no dependencies for it, keeps no stacks of what to close, and checks no
    answer, which together take as long as much of the door's own work. It is described in the
    OpenAPI document as any other, and its errors are answered as any other's.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for this path; of another method, as every route does."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
