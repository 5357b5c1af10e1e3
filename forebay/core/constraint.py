"""What an answer must look like: a JSON schema, a regular expression, or one of a few texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ConstraintKind(StrEnum):
    """How a constraint's text is read."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Constraint:
    """A form that an answer must have.

    ``text``: the schema as JSON, the regular expression (of the whole answer), or the choices as a
    JSON list of strings. Text, so that equal constraints are equal and can be looked up.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind.value, "text": self.text}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Constraint:
        """Read the JSON form. Raises KeyError or ValueError when it is not one."""
        return cls(ConstraintKind(raw["kind"]), str(raw["text"]))
