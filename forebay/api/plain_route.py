"""Routes that are asked thousands of times a second: the request in, the response out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class PlainRoute(APIRoute):
    """A route whose function takes the request alone and returns the response.

    The framework solves no dependencies for it and checks no answer, which takes as long as much of
    the door's own work. It is described in the OpenAPI document as any other.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's function."""
        return self.endpoint
