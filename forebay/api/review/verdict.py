"""A model's answer in a form, read back: the result and its reasons. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from forebay.api.review.template import AnswerForm

_RESULT: Final = re.compile(r'"result"\s*:\s*"([^"\\]*)"')
_REASONS: Final = re.compile(r'"reasons"\s*:\s*\[\s*')
_NEXT: Final = re.compile(r"\s*,\s*")
_BETWEEN: Final = re.compile(r"[,;、，；]")
_COLON: Final = re.compile(r"[:：]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A result as clients know it, and the reasons in the model's words."""

    result: str
    reasons: tuple[str, ...]


def read_verdict(text: str, form: AnswerForm) -> Verdict | None:
    """Return what an answer says, None where it has no whole result.

    An answer that was cut short gives the reasons that are whole.
    """
    word, reasons = _line(text) if form.kind == "line" else _json(text)
    result = next((result for result, own in form.words.items() if own == word), None)
    return None if result is None else Verdict(result, tuple(reasons[: form.most]))


def _line(text: str) -> tuple[str, list[str]]:
    word, *rest = _COLON.split(text.strip(), maxsplit=1)
    told = (reason.strip() for reason in _BETWEEN.split(rest[0] if rest else ""))
    return word.strip(), [reason for reason in told if reason]


def _json(text: str) -> tuple[str, list[str]]:
    result, reasons = _RESULT.search(text), _REASONS.search(text)
    if result is None:
        return "", []
    return result[1], list(_whole_texts(text, reasons.end())) if reasons else []


def _whole_texts(text: str, at: int) -> Iterator[str]:
    decoder = json.JSONDecoder()
    while text[at : at + 1] == '"':
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:  # cut short in the middle
            return
        yield value
        comma = _NEXT.match(text, at)
        if comma is None:
            return
        at = comma.end()
