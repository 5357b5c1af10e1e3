"""The input of a batch: a request a line, each with a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from forebay.api.chat_form import json_object
from forebay.core.errors import InvalidRequestError

LONGEST_CUSTOM_ID: Final = 512
MOST_FAULTS: Final = 100
_FIELDS: Final = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class LineLimits:
    """``most``: lines of a file; ``longest``: bytes of one."""

    most: int
    longest: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an input; ``line`` counts from 1, None for the file as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the form that OpenAI clients read."""
        return {
            "code": self.code,
            "line": self.line,
            "message": self.message,
            "param": self.param,
        }


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    custom_id: str
    body: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each request of a file begins, or why the file cannot be used."""

    path: Path
    places: list[tuple[int, int]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def read(self, index: int) -> Line:
        """Return a request; its line was found to be one when the plan was made."""
        offset, size = self.places[index]
        with self.path.open("rb") as file:
            file.seek(offset)
            raw = file.read(size)
        told = json_object(raw)
        return Line(told["custom_id"], told["body"], raw)


def plan_of(path: Path, endpoint: str, limits: LineLimits) -> Plan:
    """Read an input from its first line to its last. Blocks: call it in a thread."""
    plan, seen = Plan(path), set[str]()
    for number, offset, raw in _lines(path, limits.longest):
        if not raw.strip():
            continue
        if len(plan.places) == limits.most:
            plan.faults.append(
                Fault("too_many_lines", f"the file has over {limits.most} requests", number)
            )
            break
        fault = _fault(raw, number, endpoint, seen, limits)
        if fault is None:
            plan.places.append((offset, len(raw)))
            continue
        plan.faults.append(fault)
        if len(plan.faults) == MOST_FAULTS:
            break
    if not plan.places and not plan.faults:
        plan.faults.append(Fault("empty_file", "the file has no request"))
    return plan


def _lines(path: Path, longest: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number, offset, bytes) of each line, never holding more than a longest one."""
    number, offset = 0, 0
    with path.open("rb") as file:
        while raw := file.readline(longest + 2):
            number += 1
            yield number, offset, raw
            offset += len(raw)
            if not raw.endswith(b"\n") and len(raw) > longest:
                return  # it was told to be too long; where the next one begins is not looked for


def _fault(
    raw: bytes, number: int, endpoint: str, seen: set[str], limits: LineLimits
) -> Fault | None:
    if len(raw.rstrip(b"\r\n")) > limits.longest:
        return Fault("line_too_long", f"a line has at most {limits.longest} bytes", number)
    try:
        told = json_object(raw)
    except InvalidRequestError as error:
        return Fault("invalid_json_line", error.message.replace("body", "line"), number)
    if unknown := sorted(told.keys() - _FIELDS):
        return Fault(
            "invalid_request", f"unknown field {unknown[0][:64]!r}", number, unknown[0][:64]
        )
    return _fault_of_fields(told, number, endpoint, seen)


def _fault_of_fields(
    told: dict[str, Any], number: int, endpoint: str, seen: set[str]
) -> Fault | None:
    name = told.get("custom_id")
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_CUSTOM_ID:
        message = f"custom_id must be a text of 1 to {LONGEST_CUSTOM_ID} characters"
        return Fault("invalid_custom_id", message, number, "custom_id")
    if name in seen:
        message = f"the custom_id {name[:64]!r} is there twice"
        return Fault("duplicate_custom_id", message, number, "custom_id")
    seen.add(name)
    if told.get("method") != "POST":
        return Fault("invalid_method", 'method must be "POST"', number, "method")
    if told.get("url") != endpoint:
        message = f"url must be the batch's endpoint, {endpoint}"
        return Fault("mismatched_endpoint", message, number, "url")
    if not isinstance(told.get("body"), dict):
        return Fault("invalid_request", "body must be a JSON object", number, "body")
    return None
