"""The OpenAPI description: what the framework knows of the routes, and every error they answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from forebay.access.gate import Gate
from forebay.api.error_forms import compat_form, openai_form
from forebay.api.momentary import Momentary
from forebay.api.security_docs import schemes, security
from forebay.core.errors import ForebayError, all_errors

Schema = dict[str, Any]

_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})
_OPENAI_PATHS: Final = "/v1/"
_JSON: Final = "application/json"

_ANY_ROUTE: Final = frozenset(
    {"invalid_request", "no_such_route", "headers_too_slow", "too_many_connections"}
    | {"headers_too_large", "internal_error", "door_full", "queue_unavailable", "not_ready"}
    | {"rate_limited", "unauthorized", "forbidden", "address_not_allowed", "keys_unavailable"}
    | {"body_too_large", "body_too_slow", "unknown_transfer_coding"}
)
"""What any request may meet before its route looks at it, or while the queue is away."""

_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait before the next try.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def install_openapi(app: FastAPI, gate: Gate) -> Callable[[], Awaitable[Schema]]:
    """Have ``app`` describe itself at ``/openapi.json``: errors, and who may call.

    After all routes are there. Returns what has the description made, at the first call and on a
    thread: on a busy machine it takes a second, for which nobody else is to wait.
    """
    plain = app.openapi

    def described() -> Schema:
        if app.openapi_schema is None:
            description = plain()
            _add_errors(description)
            _add_security(description, gate)
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # the framework's own way
    made, written = Momentary[Schema](math.inf), Momentary[bytes](math.inf)

    async def description() -> Schema:
        return await made.get(lambda: asyncio.to_thread(app.openapi))

    async def text() -> bytes:
        return await asyncio.to_thread(_written, await description())

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        """Return the description; under a path of a proxy's, with that path."""
        root = request.scope.get("root_path", "").rstrip("/")
        if root:
            served = {**await description(), "servers": [{"url": root}]}
            return Response(await asyncio.to_thread(_written, served), media_type=_JSON)
        return Response(await written.get(text), media_type=_JSON)

    return description


def _written(description: Schema) -> bytes:
    return json.dumps(description, ensure_ascii=False, separators=(",", ":")).encode()


def _add_errors(description: Schema) -> None:
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):  # the framework's own form of errors
        schemas.pop(unused, None)
    for path, item in description["paths"].items():
        for method in _METHODS & item.keys():
            route = item[method]
            route["responses"].pop("422", None)
            for status, response in _error_responses(path, _errors_of(path, route)):
                route["responses"].setdefault(status, response)


def _add_security(description: Schema, gate: Gate) -> None:
    description["components"]["securitySchemes"] = schemes(gate)
    for path, item in description["paths"].items():
        for method in _METHODS & item.keys():
            item[method]["security"] = security(gate, path, method.upper())


def _errors_of(path: str, route: Schema) -> list[type[ForebayError]]:
    """Return what a route may answer: a task's own end too, where it submits or shows one."""
    errors = all_errors()
    if "requestBody" in route or "{" in path or path == "/result":
        return errors
    return [one for one in errors if one.code in _ANY_ROUTE]


def _error_responses(
    path: str, errors: Iterable[type[ForebayError]]
) -> Iterator[tuple[str, Schema]]:
    by_status: dict[int, list[type[ForebayError]]] = {}
    for one in errors:
        by_status.setdefault(one.status, []).append(one)
    for status, alike in sorted(by_status.items()):
        yield str(status), _response(path, alike)


def _response(path: str, alike: list[type[ForebayError]]) -> Schema:
    told = [f"`{one.code}`: {(one.__doc__ or '').splitlines()[0]} {one.mend}" for one in alike]
    response: Schema = {
        "description": "\n\n".join(dict.fromkeys(told)),
        "content": {"application/json": {"schema": _schema(path, alike)}},
    }
    if any(one.retryable for one in alike):
        response["headers"] = _RETRY_AFTER
    return response


def _schema(path: str, alike: list[type[ForebayError]]) -> Schema:
    """Return the schema of the contract's form, its codes named."""
    codes = sorted({one.code for one in alike})
    form = openai_form if path.startswith(_OPENAI_PATHS) else compat_form
    return _shape(form(ForebayError("")), codes)


def _shape(example: Any, codes: list[str], name: str = "") -> Schema:
    if isinstance(example, dict):
        shapes = {key: _shape(value, codes, key) for key, value in example.items()}
        needed = [key for key in shapes if key != "code" or "error" not in shapes]
        return {"type": "object", "properties": shapes, "required": needed}
    if name == "code":
        return {"type": "string", "enum": codes}
    return {"type": ["string", "null"] if example is None else "string"}
