"""Functions that a model may call: what is offered to it, and what it called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple


class Marks(NamedTuple):
    """What stands around a call and its arguments in a text of the model's family.

    ``<tool_call>name``, a pair of key and value for each argument, ``</tool_call>``; a line break
    may stand between any two of these.
    """

    call: str = "<tool_call>"
    call_end: str = "</tool_call>"
    key: str = "<arg_key>"
    key_end: str = "</arg_key>"
    value: str = "<arg_value>"
    value_end: str = "</arg_value>"


MARKS: Final = Marks()

RESULT_MARKS: Final = ("<tool_response>", "</tool_response>")
"""What stands around a call's result in a prompt."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function. ``spec``: its JSON text as the client wrote it, which the template prints."""

    name: str
    spec: str

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Tool:
        """Wrap ``{"type": "function", "function": {...}}``."""
        return cls(spec["function"]["name"], json.dumps(spec, ensure_ascii=False))

    @property
    def function(self) -> dict[str, Any]:
        """What is said of the function: name, description, parameters."""
        function: dict[str, Any] = json.loads(self.spec)["function"]
        return function


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions on offer, and whether one must be called.

    Attributes:
        tools: the functions.
        required: the answer must be calls.
        named: the answer must be one call of this function.
        parallel: an answer may have several calls.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    named: str | None = None
    parallel: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "tools": [tool.spec for tool in self.tools],
            "required": self.required,
            "named": self.named,
            "parallel": self.parallel,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ToolUse:
        """Read the JSON form. Raises KeyError, TypeError or ValueError when it is not one."""
        tools = tuple(Tool.of(json.loads(spec)) for spec in raw["tools"])
        return cls(tools, bool(raw["required"]), raw["named"], bool(raw["parallel"]))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call in the conversation. ``arguments``: the text of a JSON object."""

    call_id: str
    name: str
    arguments: str
