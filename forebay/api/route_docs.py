"""``/docs``: every route with its form, as one page that needs no script and no other host."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from html import escape
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import HTMLResponse, Response

from forebay.api.momentary import Momentary
from forebay.api.page import HEADERS

Schema = dict[str, Any]

NOT_BLANK = r"\S"
"""Pattern of a text that is more than spaces."""


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route that reads its JSON body itself."""
    schema = model.model_json_schema()
    return _body("application/json", _inline(schema, schema.pop("$defs", {})))


def inlined_properties(model: type[BaseModel]) -> dict[str, Schema]:
    """Return a form's fields for a route whose body has them beside its own."""
    schema = model.model_json_schema()
    found: dict[str, Schema] = _inline(schema["properties"], schema.get("$defs", {}))
    return found


def form_body(properties: dict[str, Schema], required: list[str]) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route that reads a multipart form itself."""
    schema = {"type": "object", "properties": properties, "required": required}
    return _body("multipart/form-data", schema)


def header_fields(*names: str) -> list[dict[str, Any]]:
    """Return the ``parameters`` of a route that reads optional headers itself."""
    return [{"name": name, "in": "header", "schema": {"type": "string"}} for name in names]


def install_docs(app: FastAPI, description: Callable[[], Awaitable[Schema]]) -> None:
    """Serve ``/docs``, made of the app's ``description`` once and on a thread."""
    made = Momentary[str](math.inf)

    async def page() -> str:
        return await asyncio.to_thread(_page, await description())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """Return the page."""
        return HTMLResponse(await made.get(page), headers=HEADERS)


def _body(media_type: str, schema: Schema) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def _inline(part: Any, definitions: Schema) -> Any:
    """Put definitions where they are referred to: an OpenAPI document keeps them elsewhere."""
    if isinstance(part, list):
        return [_inline(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inline(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {key: _inline(value, definitions) for key, value in part.items()}


def _page(description: Schema) -> str:
    named = description.get("components", {}).get("schemas", {})
    routes = "".join(
        _route(method, path, route)
        for path, methods in _inline(description["paths"], named).items()
        for method, route in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>Forebay API</title><link rel="icon" href="ui/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="ui/tokens.css"><link rel="stylesheet" href="ui/docs.css">'
        f'</head><body><h1>Forebay API</h1><p><a href=".">Page</a> '
        f'<a href="openapi.json">OpenAPI {escape(description["openapi"])}</a></p>'
        f"{routes}</body></html>"
    )


def _route(method: str, path: str, route: Schema) -> str:
    told = escape(route.get("description", "")).replace("``", "")
    rows = "".join(_rows(route))
    table = f"<table><tr><th>field<th>where<th>form</tr>{rows}</table>" if rows else ""
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{told}</p>{table}"


def _rows(route: Schema) -> Iterator[str]:
    for field in route.get("parameters", ()):
        yield _row(field["name"], field["in"], field["schema"], required=field.get("required"))
    for media_type, content in route.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        if "anyOf" in schema:  # a body that may be left out
            schema = next(one for one in schema["anyOf"] if "properties" in one)
        if "properties" not in schema:
            yield _row("(the body)", media_type, schema, required=True)
        for name, field in schema.get("properties", {}).items():
            yield _row(name, media_type, field, required=name in schema.get("required", ()))


def _row(name: str, where: str, schema: Schema, *, required: bool | None) -> str:
    form = _form(schema) + ("" if required else ", optional")
    return f"<tr><td><code>{escape(name)}</code><td>{escape(where)}<td>{escape(form)}</tr>"


def _form(schema: Schema) -> str:
    """Return a schema in a line, as it would be written down by hand."""
    if "anyOf" in schema:
        forms = [_form(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(forms)
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    if schema.get("type") == "array":
        return f"list of ({_form(schema.get('items', {}))})"
    if "properties" in schema:
        needed = schema.get("required", ())
        fields = (
            f"{name}{'' if name in needed else '?'}: {_form(field)}"
            for name, field in schema["properties"].items()
            if field.get("type") != "null" and field.get("maxItems") != 0
        )
        return "{" + ", ".join(fields) + "}"
    kind = str(schema.get("format") or schema.get("type", "any"))
    return kind + _bounds(schema)


def _bounds(schema: Schema) -> str:
    signs = {
        "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<",
    }  # fmt: skip
    return "".join(f" {sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)
