"""What an answer must look like: a JSON schema, an expression, one of a few texts, or calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from forebay.core.tools import ToolUse


class ConstraintKind(StrEnum):
    """How a constraint's text is read."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    CALLS = "calls"


@dataclass(frozen=True, slots=True)
class Constraint:
    """A form that an answer must have.

    ``text``: the schema as JSON, the regular expression (of the whole answer), the choices as a
    JSON list of strings, or what :meth:`calls` makes of tools. Text, so that equal constraints are
    equal and can be looked up.
    """

    kind: ConstraintKind
    text: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> Constraint:
        """Return the constraint to JSON that a schema allows. Its properties keep their order."""
        return cls(ConstraintKind.JSON_SCHEMA, json.dumps(schema, ensure_ascii=False))

    @classmethod
    def json_object(cls) -> Constraint:
        """Return the constraint to any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Return the constraint to what an expression matches from beginning to end."""
        return cls(ConstraintKind.REGEX, pattern)

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Constraint:
        """Return the constraint to one of ``texts``."""
        return cls(ConstraintKind.CHOICE, json.dumps(list(texts), ensure_ascii=False))

    @classmethod
    def calls(cls, use: ToolUse) -> Constraint | None:
        """Return the constraint to calls of tools, None where an answer may be anything.

        A function is called by its schema's letter where a call is demanded, and, in an answer that
        may be text too, where one of the functions is ``strict``.
        """
        offered = [one.function for one in use.tools if use.named in (None, one.name)]
        demanded = use.required or use.named is not None
        if not demanded and not any(one.get("strict") for one in offered):
            return None
        told = {
            "functions": [[one["name"], one.get("parameters")] for one in offered],
            "demanded": demanded,
            "several": use.parallel and use.named is None,
        }
        return cls(ConstraintKind.CALLS, json.dumps(told, ensure_ascii=False))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind.value, "text": self.text}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Constraint:
        """Read the JSON form. Raises KeyError or ValueError when it is not one."""
        return cls(ConstraintKind(raw["kind"]), str(raw["text"]))
