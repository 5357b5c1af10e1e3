"""A request's headers as the server has them: names in lower case, nothing built around them."""

from __future__ import annotations

from starlette.types import Scope


def first_value(scope: Scope, name: bytes) -> bytes:
    """Return a header's first value, b"" where it was not sent. ``name`` is in lower case."""
    for one, value in scope["headers"]:
        if one == name:
            found: bytes = value
            return found
    return b""


def values_of(scope: Scope, name: bytes) -> list[bytes]:
    """Return a header's values in the order in which they came."""
    return [value for one, value in scope["headers"] if one == name]
