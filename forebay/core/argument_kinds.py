"""How an argument is written in a call: a string as it is, anything else as JSON.

A text does not say which of the two it is; the function's schema does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

_WHITESPACE: Final = " \t\r\n"
_DEEPEST: Final = 32

_NAMES: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}

ANY: Final = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})


def branches(schema: Any, root: Any) -> Iterator[tuple[frozenset[str], Any]]:
    """Yield the alternatives of a schema, each with the JSON types that it may have.

    An alternative of strings and others is one of strings and one of others. ``root``: the schema
    that references are relative to. What cannot be read allows anything, and a schema that only
    refers to others, where these are not found, is its own alternative.
    """
    # what was referred to once says nothing new a second time, and may lead back to itself
    yield from _branches(schema, root, set(), 0)


def _branches(
    schema: Any, root: Any, seen: set[str], depth: int
) -> Iterator[tuple[frozenset[str], Any]]:
    if not isinstance(schema, dict):
        yield ANY, {}
    elif depth > _DEEPEST:
        yield ANY, schema
    elif isinstance(reference := schema.get("$ref"), str):
        if (found := _target(root, reference)) is None:
            yield ANY, schema
        elif reference not in seen:
            seen.add(reference)
            yield from _branches(found, root, seen, depth + 1)
    elif (inner := _alternatives(schema)) is not None:
        for one in inner:
            yield from _branches(one, root, seen, depth + 1)
    else:
        yield from _plain(schema)


def _alternatives(schema: Mapping[str, Any]) -> list[Any] | None:
    """Return what a schema is one of, None where it says itself of what type it is."""
    if schema.keys() & {"type", "enum", "const"}:
        return None
    found = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(only := schema.get("allOf"), list) and len(only) == 1:
        found = found or only
    return found if isinstance(found, list) else None


def kinds_of(schema: Any, root: Any) -> frozenset[str]:
    """Return the JSON types that a value of a schema may have."""
    return frozenset[str]().union(*(kinds for kinds, _ in branches(schema, root)))


def argument_json(text: str, kinds: frozenset[str]) -> str:
    """Return the JSON of an argument that was written as ``text``: itself, or a string of it."""
    found = _kind_of(text)
    if found is not None and (found in kinds or "string" not in kinds):
        return text.strip(_WHITESPACE)
    return json.dumps(text, ensure_ascii=False)


def _plain(schema: Mapping[str, Any]) -> Iterator[tuple[frozenset[str], Any]]:
    if isinstance(values := _values(schema), list):
        strings = [one for one in values if isinstance(one, str)]
        others = [one for one in values if not isinstance(one, str)]
        if strings:
            yield frozenset({"string"}), {"enum": strings}
        if others:
            yield frozenset(_name_of(one) for one in others), {**schema, "enum": others}
        return
    named = schema.get("type", _implied(schema))
    types = [named] if isinstance(named, str) else named
    if not isinstance(types, list) or not types or not all(one in ANY for one in types):
        yield ANY, schema
        return
    others = [one for one in types if one != "string"]
    if "string" in types:
        yield frozenset({"string"}), {**schema, "type": "string"}
    if others:
        kinds = {*others, "integer"} if "number" in others else others
        yield frozenset(kinds), {**schema, "type": others}


def _implied(schema: Mapping[str, Any]) -> str | None:
    """Return the type that is meant where none is said."""
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else None


def _values(schema: Mapping[str, Any]) -> Any:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _target(root: Any, reference: str) -> Any:
    """Follow a JSON pointer of names; None where it leads nowhere."""
    start, *names = reference.split("/")
    found = root if start == "#" else None
    for name in names:
        key = name.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _kind_of(text: str) -> str | None:
    """Return the type of a JSON text, None where it is none."""
    try:
        return _name_of(json.loads(text, parse_constant=_no_number))
    except (ValueError, RecursionError):
        return None


def _name_of(value: Any) -> str:
    return _NAMES[type(value)]


def _no_number(name: str) -> NoReturn:
    """``NaN`` and ``Infinity`` are Python's, not JSON's."""
    raise ValueError(name)
