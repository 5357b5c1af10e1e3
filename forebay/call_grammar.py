"""The grammar of calls: functions by their names, arguments by their schemas, in the family's form.

The grammar is in the library's dialect of Lark. A mark that is one token of the model's vocabulary
is that token, as the model was trained; elsewhere it is its characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from forebay.core.argument_kinds import ANY, branches
from forebay.core.tools import MARKS

MOST_ARGUMENTS: Final = 128
"""Of all functions together."""

_OTHERS: Final = frozenset({"$ref", "anyOf", "oneOf", "allOf"})
"""What says of a schema that others say what it is."""

LONGEST: Final = 2**18
"""Characters of a grammar: each argument that refers to definitions has them all."""


def call_grammar(told: Mapping[str, Any], ids: Mapping[str, int], whitespace: str) -> str:
    """Return the grammar of what ``Constraint.calls`` tells.

    ``ids``: tokens of the marks, as far as there are any. ``whitespace``: between two marks of
    JSON, an expression.

    Raises:
        ValueError: saying which function, and what is wrong with its parameters.
    """
    grammar = "\n".join(_Grammar(ids, whitespace).lines(told)) + "\n"
    if len(grammar) > LONGEST:
        raise ValueError(
            "the functions' parameters refer to too many definitions: write them where they stand"
        )
    return grammar


class _Grammar:
    def __init__(self, ids: Mapping[str, int], whitespace: str) -> None:
        self._whitespace = whitespace
        self._marks = {
            mark: f"<[{ids[mark]}]>" if mark in ids else json.dumps(mark) for mark in MARKS
        }
        self._as_tokens = ids.keys() >= set(MARKS)
        self._rules: list[str] = []

    def lines(self, told: Mapping[str, Any]) -> Iterator[str]:
        several = " (NL? call)*" if told["several"] else ""
        if told["demanded"]:
            yield f"start: NL? call{several} NL?"
        else:
            yield from self._text_first(several)
        functions = told["functions"]
        names = " | ".join(f"f{at}" for at in range(len(functions)))
        yield f"call: {self._marks[MARKS.call]} rest"
        yield f"rest: ({names}) {self._marks[MARKS.call_end]}"
        yield 'NL: "\\n"'
        for at, (name, parameters) in enumerate(functions):
            yield self._function(at, name, parameters)
        if len(self._rules) > MOST_ARGUMENTS:
            raise ValueError(
                f"the functions have {len(self._rules)} parameters, the limit is {MOST_ARGUMENTS}"
            )
        yield from self._rules
        yield from self._text()

    def _text_first(self, several: str) -> Iterator[str]:
        """An answer that may be text, calls, or calls after text."""
        if self._as_tokens:
            yield f"start: FREE? (call{several} NL?)?"
            yield f"FREE: {_without(MARKS.call, least='+')}"
        else:
            yield f"start: FREE | head rest{several} NL?"
            yield f"FREE: {_without(MARKS.call)}"
            yield f"head[suffix={json.dumps(MARKS.call)}]: /(?s:.*)/"

    def _text(self) -> Iterator[str]:
        """A string argument, and the mark at its end."""
        if self._as_tokens:
            yield f"text: TEXT {self._marks[MARKS.value_end]}"
            yield f"TEXT: {_without(MARKS.value_end)}"
        else:
            yield f"text[suffix={json.dumps(MARKS.value_end)}]: /(?s:.*)/"

    def _function(self, at: int, name: str, parameters: Any) -> str:
        """A function's name and its arguments, in the order of its schema."""
        parts = [f"f{at}: {json.dumps(name)} NL?"]
        required = _required(name, parameters)
        for key, schema in _properties(name, parameters).items():
            argument = self._argument(key, schema, parameters)
            parts.append(argument if key in required else f"({argument})?")
        return " ".join(parts)

    def _argument(self, key: str, schema: Any, root: Any) -> str:
        if not key or any(mark in key for mark in MARKS):
            raise ValueError(f"no argument can be called {key[:50]!r}")
        marks = self._marks
        rule = f"v{len(self._rules)}"
        values = [self._value(kinds, one, root) for kinds, one in branches(schema, root)]
        self._rules.append(f"{rule}: {' | '.join(dict.fromkeys(values))}")
        return (
            f"{marks[MARKS.key]} {json.dumps(key)} {marks[MARKS.key_end]} NL? "
            f"{marks[MARKS.value]} {rule} NL?"
        )

    def _value(self, kinds: frozenset[str], schema: Any, root: Any) -> str:
        """One alternative of an argument's value, up to the mark at its end."""
        if kinds == ANY:
            if other := schema.keys() & _OTHERS:
                raise ValueError(
                    f"no type is found behind the {min(other)} of a parameter: give it a type"
                )
            return "text"
        end = self._marks[MARKS.value_end]
        if kinds == {"string"}:
            return self._texts(schema["enum"], end) if "enum" in schema else "text"
        whole = {**schema, "x-guidance": {"whitespace_pattern": self._whitespace}}
        if '"$ref"' in json.dumps(schema):
            shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
            whole = {**shared, **whole}
        return f"%json {json.dumps(whole)} {end}"

    def _texts(self, texts: list[str], end: str) -> str:
        for text in texts:
            if MARKS.value_end in text:
                raise ValueError(f"no string argument can have {MARKS.value_end} in it")
        some = " | ".join(json.dumps(text) for text in texts if text)
        return f"({some}){'?' if '' in texts else ''} {end}" if some else end


def _without(mark: str, least: str = "*") -> str:
    """Return the terminal of any text in which a mark does not stand."""
    quoted = mark.replace("/", "\\/")
    return f"/(?s:.{least})/ & ~/(?s:.*{quoted}.*)/"


def _properties(name: str, parameters: Any) -> dict[str, Any]:
    properties = (parameters or {}).get("properties", {})
    if isinstance(properties, dict):
        return properties
    raise ValueError(f"the properties of {name}'s parameters must be an object")


def _required(name: str, parameters: Any) -> list[Any]:
    required = (parameters or {}).get("required", [])
    if isinstance(required, list):
        return required
    raise ValueError(f"what {name} requires must be a list of its properties")
