"""Who may call each route, as the OpenAPI description says it: by the gate's table of scopes."""

from __future__ import annotations

from typing import Any, Final

from forebay.access.caller import Scope
from forebay.access.gate import Gate
from forebay.access.paths import scope_of

Schema = dict[str, Any]

_KEYS: Final[Schema] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as `forebay keys create` makes them.",
    },
    "keyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own.",
    },
}
_TOKENS: Final[Schema] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the issuer that this server trusts; its scopes are in a claim.",
    }
}


def schemes(gate: Gate) -> Schema:
    """Return what may be brought to this server: keys, tokens, or both."""
    keys = _KEYS if gate.takes_keys or not gate.takes_tokens else {}
    return {**keys, **(_TOKENS if gate.takes_tokens else {})}


def security(gate: Gate, path: str, method: str) -> list[Schema]:
    """Return the ways to come in at a route, each enough by itself, with the scope that it needs.

    An empty one: nothing need be brought. None at all: nothing is looked at.
    """
    scope = scope_of(path, method)
    if scope is None:
        return []
    if gate.anonymous and scope is not Scope.ADMIN:
        return [{}]
    return [{name: [scope.value]} for name in schemes(gate)]
