"""Calls of functions that a server streams, written into the answer's text as whole ones.

An answer travels as one text, in which calls stand between the family's marks. A server elsewhere
has taken them out of its model's words already; here they are put back, so that the door reads both
alike: ``<tool_call>{"name": ..., "arguments": "..."}</tool_call>``, the arguments to the letter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from forebay.core.tools import MARKS


@dataclass(slots=True)
class _Growing:
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class CallWriter:
    """The calls of one answer, in the order of their indexes."""

    def __init__(self) -> None:
        self._calls: dict[int, _Growing] = {}

    def take(self, deltas: Any) -> str:
        """Add a chunk's pieces of calls; return the text of those that are whole by it.

        Raises:
            TypeError, ValueError, AttributeError: they are of no known form.
        """
        whole = ""
        for piece in deltas:
            index = piece.get("index", 0)
            if index not in self._calls:
                whole += self.finish()
                self._calls = {index: _Growing()}
            self._add(self._calls[index], piece.get("function") or {})
        return whole

    def finish(self) -> str:
        """Return the text of the call that was in the making; the next piece begins another."""
        written = "".join(map(_written, self._calls.values()))
        self._calls = {}
        return written

    def _add(self, call: _Growing, function: dict[str, Any]) -> None:
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise TypeError("a call's name and arguments are no text")
        call.name += name
        call.arguments.append(arguments)


def _written(call: _Growing) -> str:
    told = {"name": call.name, "arguments": "".join(call.arguments) or "{}"}
    # between the marks no other may stand
    text = json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")
    return f"{MARKS.call}{text}{MARKS.call_end}"
