"""What a constraint may hold, where its cost grows faster than the grammar library's limits see.

The library counts steps, and a single step of some forms takes seconds and gigabytes. Measured on
one core: 8,000 times "any letter or none" in a row 30 s and 4 GB, 20 patterns that one text must
match 27 s and 2 GB, ``multipleOf`` 999983 9 s and 0.4 GB. Within these bounds no such form that was
found takes more than 0.2 s and 30 MB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

MOST_MARKS: Final = 500
"""Quantifiers, groups and escapes of one expression: a row of parts that may all be missing costs
with the square of its length. Of several expressions the squares are added up."""

MOST_MEETING: Final = 6
"""Patterns and formats that one text must match: two to the power of their number is the cost."""

LARGEST_MULTIPLE: Final = 20_000
"""Least common multiple of all ``multipleOf``, in units of their last decimal place: the states of
a machine that divides."""

MOST_PATTERNS: Final = 32
"""Patterns for the properties of one object: each is held against each other, and what is left."""

LEAST: Final = -(2**63 - 1024)
"""No number of a schema is less. The library reads it as a 64-bit float, makes an integer of that
and turns its sign; of -2**63 there is no opposite, and the stack overflows: the process is gone."""

_MARKS: Final = "?*{(\\"


def check_expressions(expressions: Iterable[str]) -> None:
    """Raise ValueError where expressions have more of what ``MOST_MARKS`` counts than they may."""
    squares = sum(sum(map(one.count, _MARKS)) ** 2 for one in expressions)
    if squares > MOST_MARKS**2:
        raise ValueError(
            f"its expressions have {math.isqrt(squares)} quantifiers, groups and escapes, the "
            f"limit is {MOST_MARKS}; write repeated parts with {{n}}"
        )


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check a JSON schema against the bounds.

    Raises:
        ValueError: naming what there is too much of.
        RecursionError: it is nested too deeply.
    """
    parts = list(_objects(schema))
    _check_numbers(schema)
    for part in parts:
        _check_properties(part)
    check_expressions({one for part in parts for one in _expressions(part)})
    _check_multiples(part.get("multipleOf") for part in parts)
    _check_meetings(schema, parts)


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        part = part.values()
    elif not isinstance(part, list):
        return
    for one in part:
        yield from _objects(one)


def _check_numbers(part: Any) -> None:
    if isinstance(part, dict | list):
        for one in part.values() if isinstance(part, dict) else part:
            _check_numbers(one)
    elif isinstance(part, int | float) and part < LEAST:
        raise ValueError(f"it has a number under {LEAST}, the least that can be followed")


def _expressions(part: dict[str, Any]) -> Iterator[str]:
    if isinstance(pattern := part.get("pattern"), str):
        yield pattern
    if isinstance(patterns := part.get("patternProperties"), dict):
        yield from patterns


def _check_properties(part: dict[str, Any]) -> None:
    patterns = part.get("patternProperties")
    if isinstance(patterns, dict) and len(patterns) > MOST_PATTERNS:
        raise ValueError(
            f"patternProperties has {len(patterns)} patterns, the limit is {MOST_PATTERNS}"
        )


def _check_multiples(found: Iterable[Any]) -> None:
    numbers = [Decimal(str(one)) for one in found if type(one) in (int, float)]
    numbers = [abs(one) for one in numbers if one.is_finite() and one]
    unit = min((_exponent(one) for one in numbers), default=0)
    together = 1
    for one in numbers:
        together = math.lcm(together, int(one.scaleb(-unit)))
        if together > LARGEST_MULTIPLE:
            raise ValueError(
                f"the least common multiple of its multipleOf, in units of 1e{unit}, is over "
                f"{LARGEST_MULTIPLE}"
            )


def _exponent(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return min(0, exponent) if isinstance(exponent, int) else 0


def _check_meetings(schema: Mapping[str, Any], parts: list[dict[str, Any]]) -> None:
    most = sum(map(_own, parts))
    rebased = any(isinstance(part.get("$id"), str) for part in parts if part is not schema)
    if most > MOST_MEETING and not rebased:
        most = _Meetings(schema, most).of(schema)
    if most > MOST_MEETING:
        raise ValueError(
            f"one text may have to match {most} patterns or formats, the limit is {MOST_MEETING}"
        )


def _own(part: dict[str, Any]) -> int:
    return sum(isinstance(part.get(name), str) for name in ("pattern", "format"))


class _Meetings:
    """Counts, from above, the patterns and formats that one text of a schema must match.

    ``allOf`` and ``$ref`` add to what stands beside them, in the properties below too; of
    alternatives, and of properties beside each other, the one with the most counts. ``total``: of
    the whole schema, taken for a reference that is no path from its root.
    """

    def __init__(self, schema: Mapping[str, Any], total: int) -> None:
        self._schema = schema
        self._total = total
        self._referred: dict[str, int] = {}

    def of(self, part: Any) -> int:
        """Return the bound for a schema; the largest for a list of them."""
        if not isinstance(part, dict):
            return self._largest(part) if isinstance(part, list) else 0
        together, below = _own(part), 0
        for name, value in part.items():
            match name, value:
                case "$ref", str():
                    together += self._of_reference(value)
                case "allOf", list():
                    together += sum(map(self.of, value))
                case "patternProperties", dict():
                    together += self._largest(value.values())
                case "anyOf" | "oneOf", _:
                    together += self.of(value)
                case "properties", dict():
                    below = max(below, self._largest(value.values()))
                case "$defs" | "definitions", _:
                    pass  # what is used of them is referred to
                case _:
                    below = max(below, self.of(value))
        return together + below

    def _largest(self, parts: Iterable[Any]) -> int:
        return max(map(self.of, parts), default=0)

    def _of_reference(self, reference: str) -> int:
        if reference not in self._referred:
            self._referred[reference] = 0  # one that leads back here adds nothing new
            try:
                self._referred[reference] = self.of(_target(self._schema, reference))
            except LookupError:
                self._referred[reference] = self._total
        return self._referred[reference]


def _target(schema: Mapping[str, Any], reference: str) -> Any:
    """Follow a JSON pointer. Raises LookupError where it is none, or leads nowhere."""
    root, *names = unquote(reference).split("/")
    if root != "#":
        raise LookupError(reference)
    found: Any = schema
    for name in names:
        key = name.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal():
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found[key]
        else:
            raise LookupError(reference)
    return found
