"""A point as it is kept: its figures as numbers of four bytes, as text."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence

from forebay.ops.live.columns import FORM, KEYS, Values

_ROW = struct.Struct(f"<{len(KEYS)}f")
_DIGITS = 5


def pack(values: Values) -> str:
    """Return the text in which a point is kept."""
    row = [math.nan if (value := values.get(key)) is None else value for key in KEYS]
    return FORM + base64.b85encode(_ROW.pack(*row)).decode("ascii")


def unpack(text: str) -> list[float | None] | None:
    """Return a kept point's figures in the order of ``KEYS``; None for one of another form."""
    if not text.startswith(FORM) or len(text) != len(FORM) + _ROW.size * 5 // 4:
        return None
    row = _ROW.unpack(base64.b85decode(text[len(FORM) :]))
    return [told(value) for value in row]


def told(value: float) -> float | None:
    """Return a figure with the digits that mean something; None where it is not known."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}") if value else 0.0


def mean_of(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Return the mean of each column over the rows in which it is known."""
    means: list[float | None] = []
    for column in zip(*rows, strict=True):
        known = [value for value in column if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means
