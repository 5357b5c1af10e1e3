"""Calls of functions, read out of an answer's text as it grows.

The text is the model's own (``forebay.core.tools.Marks``), or, of a server elsewhere, whole calls
as JSON between the same marks. Nothing of a mark is ever let out as text, and what is told of a
call is what will stand in the whole answer, wherever the text is cut into pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from forebay.core.argument_kinds import ANY, argument_json, kinds_of
from forebay.core.tools import MARKS, ToolUse

_SPACE: Final = " \t\r\n"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME_SO_FAR: Final = re.compile(r"[A-Za-z0-9_.-]{0,64}[ \t\r]*")
_NAME_END: Final = re.compile(r"[\n<]")
_TEXT: Final = frozenset({"string"})

Kinds = dict[str, dict[str, frozenset[str]]]
"""The JSON types of the arguments of each function."""


@dataclass(frozen=True, slots=True)
class Said:
    """Text of the answer that is no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A function is called: the answer's ``index``-th call, from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


Told = Said | CallBegun | Argued


class CallReader:
    """Reads one answer. ``ended``: calls that are whole.

    A call that the answer ends within stays open: its arguments are no JSON, so that nobody runs
    half of it. White space beside a call is no text.
    """

    def __init__(self, use: ToolUse) -> None:
        self.ended = 0
        self._kinds = _kinds(use)
        self._most = None if use.parallel and use.named is None else 1
        self._begun = 0
        self._buffer = ""
        self._space = ""  # white space that is text unless a call follows
        self._beside = False  # a call: white space is no text
        self._step: Callable[[], Iterator[Told]] = self._text
        self._of: dict[str, frozenset[str]] = {}
        self._opening = "{"  # what stands before the next argument
        self._key = ""

    def feed(self, text: str) -> list[Told]:
        """Take more of the text; return what it tells."""
        self._buffer += text
        told: list[Told] = []
        before = None
        while before != (before := (self._step, self._buffer)):
            told.extend(self._step())
        return _joined(told)

    def finish(self) -> list[Told]:
        """Return what is left at the answer's end: what looked like the beginning of a mark."""
        rest = self._space + self._buffer if self._step == self._text else ""
        self._buffer = self._space = ""
        return [Said(rest)] if rest else []

    def _text(self) -> Iterator[Told]:
        at = self._buffer.find(MARKS.call)
        end = at if at >= 0 else len(self._buffer) - _begins(self._buffer, MARKS.call)
        yield from self._say(self._buffer[:end])
        if at < 0:
            self._buffer = self._buffer[end:]
            return
        self._go(self._name, at + len(MARKS.call))

    def _say(self, text: str) -> Iterator[Told]:
        text = self._space + text
        if self._beside:
            text = text.lstrip(_SPACE)
        shown = text.rstrip(_SPACE)
        self._space = text[len(shown) :]
        if shown:
            self._beside = False
            yield Said(shown)

    def _name(self) -> Iterator[Told]:
        lead = self._buffer.lstrip(_SPACE)
        if lead.startswith("{"):
            self._step = self._whole
            return
        found = _NAME_END.search(lead)
        if found is None and _NAME_SO_FAR.fullmatch(lead):
            return
        name = lead[: found.start() if found else None].strip(_SPACE)
        rest = lead[found.start() :] if found else ""
        if rest.startswith("<") and _is_part(rest, MARKS.key, MARKS.call_end):
            return
        if not rest.startswith(("\n", MARKS.key, MARKS.call_end)) or not _NAME.fullmatch(name):
            yield from self._no_call()
            return
        self._of = self._kinds.get(name, {})
        self._opening = "{"
        yield from self._begin(name)
        self._buffer = rest
        self._step = self._between

    def _no_call(self) -> Iterator[Told]:
        """What stands after the mark is no name: the mark was text."""
        self._step = self._text
        yield from self._say(MARKS.call)

    def _whole(self) -> Iterator[Told]:
        """Read a call that is JSON; it is told when it is whole."""
        at = self._buffer.find(MARKS.call_end)
        if at < 0:
            return
        call = _json_call(self._buffer[:at])
        if call is None:
            yield from self._no_call()
            return
        yield from self._begin(call[0])
        yield from self._argue(call[1])
        self._end(at)

    def _between(self) -> Iterator[Told]:
        """Look for the next argument or the call's end; what else stands there says nothing."""
        key, end = self._buffer.find(MARKS.key), self._buffer.find(MARKS.call_end)
        if key >= 0 and (end < 0 or key < end):
            self._go(self._argument_key, key + len(MARKS.key))
        elif end >= 0:
            yield from self._argue("{}" if self._opening == "{" else "}")
            self._end(end)
        else:
            longest = max(_begins(self._buffer, one) for one in (MARKS.key, MARKS.call_end))
            self._buffer = self._buffer[len(self._buffer) - longest :]

    def _argument_key(self) -> Iterator[Told]:
        at = self._buffer.find(MARKS.key_end)
        if at >= 0:
            self._key = self._buffer[:at]
            self._go(self._before_value, at + len(MARKS.key_end))
        yield from ()

    def _before_value(self) -> Iterator[Told]:
        at = self._buffer.find(MARKS.value)
        if at < 0:
            return
        self._go(self._value, at + len(MARKS.value))
        yield from self._argue(f"{self._opening}{_quoted(self._key)}:")
        self._opening = ","
        if self._of.get(self._key) == _TEXT:
            self._step = self._string
            yield from self._argue('"')

    def _string(self) -> Iterator[Told]:
        """Tell a string's letters as they come."""
        at = self._buffer.find(MARKS.value_end)
        end = at if at >= 0 else len(self._buffer) - _begins(self._buffer, MARKS.value_end)
        text = _quoted(self._buffer[:end])[1:-1]
        if at < 0:
            self._buffer = self._buffer[end:]
        else:
            text += '"'
            self._go(self._between, at + len(MARKS.value_end))
        if text:
            yield from self._argue(text)

    def _value(self) -> Iterator[Told]:
        """Tell a value whose type only all of it says."""
        at = self._buffer.find(MARKS.value_end)
        if at < 0:
            return
        value = argument_json(self._buffer[:at], self._of.get(self._key, ANY))
        self._go(self._between, at + len(MARKS.value_end))
        yield from self._argue(value)

    def _go(self, step: Callable[[], Iterator[Told]], at: int) -> None:
        self._step, self._buffer = step, self._buffer[at:]

    def _end(self, at: int) -> None:
        self.ended += 1
        self._beside = True
        self._go(self._text, at + len(MARKS.call_end))

    def _begin(self, name: str) -> Iterator[Told]:
        self._begun += 1
        self._space = ""
        if self._most is None or self._begun <= self._most:
            yield CallBegun(self._begun - 1, name)

    def _argue(self, text: str) -> Iterator[Told]:
        if self._most is None or self._begun <= self._most:
            yield Argued(self._begun - 1, text)


def _kinds(use: ToolUse) -> Kinds:
    return {tool.name: _argument_kinds(tool.function.get("parameters")) for tool in use.tools}


def _argument_kinds(parameters: Any) -> dict[str, frozenset[str]]:
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    if not isinstance(properties, dict):
        return {}
    return {key: kinds_of(schema, parameters) for key, schema in properties.items()}


def _json_call(text: str) -> tuple[str, str] | None:
    """Return the name of a call and the text of its arguments, None where it is no call."""
    try:
        call = json.loads(text)
        name, arguments = call["name"], call.get("arguments", {})
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if not isinstance(name, str) or not name:
        return None
    if isinstance(arguments, str):
        return name, arguments
    return (name, _quoted(arguments)) if isinstance(arguments, dict) else None


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _begins(text: str, mark: str) -> int:
    """Return the length of the longest end of ``text`` that a mark begins with."""
    lengths = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(mark[:length])), 0)


def _is_part(text: str, *marks: str) -> bool:
    """Whether a mark may begin here of which not all has come."""
    return any(len(text) < len(mark) and mark.startswith(text) for mark in marks)


def _joined(told: list[Told]) -> list[Told]:
    """Join what follows of the same kind."""
    joined: list[Told] = []
    for one in told:
        match joined[-1:], one:
            case [Said(before)], Said(text):
                joined[-1] = Said(before + text)
            case [Argued(index, before)], Argued(at, text) if at == index:
                joined[-1] = Argued(index, before + text)
            case _:
                joined.append(one)
    return joined
