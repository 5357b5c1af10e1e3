"""Constraints in the language of the grammar library, and whether it can follow them.

The door asks before a request is queued, the engine compiles; both must read a constraint alike.
Needs no torch and no tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, grammar_from

from forebay.call_grammar import call_grammar
from forebay.core.constraint import Constraint, ConstraintKind
from forebay.grammar_bounds import check_expressions, check_schema

_WHITESPACE: Final = r"( |\n {0,16})?"
"""Between two marks of JSON: a blank, or a new line with its indentation. A model that may write
any amount may never come to an end."""

_LONGEST_FAULT: Final = 300

TOO_DEEP: Final = "it is nested too deeply"

LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=500_000,
    max_items_in_row=20_000,
    verbose_errors=False,
)
"""Steps, not seconds, so that a grammar is refused or taken alike on every machine. By the
library's own figures one token costs 15 ms and a grammar 100 MB, each at the very most."""

LONGEST: Final = 32_768
"""Bytes of a constraint. What the limits above do not bound grows with it, and is bounded in
:mod:`forebay.grammar_bounds` where it grows faster."""


_NO_TOKENS: Final[Mapping[str, int]] = {}


def library_form(constraint: Constraint, marks: Mapping[str, int] = _NO_TOKENS) -> str:
    """Return a constraint's grammar as the library takes it.

    ``marks``: the tokens that the model has for the marks of calls.

    Raises:
        ValueError: it is too long, not JSON where it must be, or beyond one of its bounds.
        RecursionError: it is nested too deeply.
    """
    size = len(constraint.text.encode())
    if size > LONGEST:
        raise ValueError(f"it takes {size} bytes, the limit is {LONGEST}")
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            schema = _object(constraint.text)
            check_schema(schema)
            # the library's own switches are ours to set: one of them ignores unknown keywords
            schema["x-guidance"] = {"whitespace_pattern": _WHITESPACE}
            return json.dumps({"grammars": [{"json_schema": schema}]})
        case ConstraintKind.REGEX:
            check_expressions([constraint.text])
            return grammar_from("regex", constraint.text)
        case ConstraintKind.CHOICE:
            # a terminal is one machine for all texts; else each takes a place in the parser's row
            texts = " | ".join(map(json.dumps, json.loads(constraint.text)))
            return grammar_from("lark", f"start: TEXT\nTEXT: {texts}")
        case ConstraintKind.CALLS:
            told = _object(constraint.text)
            for _, parameters in told["functions"]:
                check_schema(parameters if isinstance(parameters, dict) else {})
            return grammar_from("lark", call_grammar(told, marks, _WHITESPACE))


def fault_of(constraint: Constraint) -> str | None:
    """Return what is wrong with a constraint, None where it can be followed."""
    try:
        form = library_form(constraint)
    except ValueError as error:
        return brief(str(error))
    except RecursionError:
        return TOO_DEEP
    try:
        with panics_as_faults():
            failed, messages = LLMatcher.validate_grammar_with_warnings(form, limits=LIMITS)
    except ValueError as error:
        return str(error)
    return brief(messages[0]) if failed else None


@contextmanager
def panics_as_faults() -> Iterator[None]:
    """Raise ValueError where the library panics: by nature that is no ``Exception``."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the class has no importable name
            raise
        raise ValueError("the grammar library fails on it") from error


def brief(fault: str) -> str:
    """Return the part of the library's message that a client can use, in a line."""
    line = " ".join(fault.split())
    return line if len(line) <= _LONGEST_FAULT else line[:_LONGEST_FAULT] + "…"


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if isinstance(found, dict):
        return found
    raise ValueError("a JSON schema is a JSON object")
