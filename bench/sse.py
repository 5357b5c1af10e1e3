"""Reads one line of an OpenAI-compatible event stream."""

from __future__ import annotations

import json
from dataclasses import dataclass


class ServerSaidError(Exception):
    """The server answered with an error, or broke its answer off."""


@dataclass(frozen=True, slots=True)
class Said:
    """New text, possibly none, and the answer's tokens where the line counts them."""

    text: str = ""
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The answer is whole."""


_NOTHING = Said()
_TEXTS = ("content", "reasoning_content", "reasoning")


def read_line(line: str) -> Said | StreamEnd:
    """Return what a line says; blank lines, comments and other fields say nothing.

    Raises:
        ServerSaidError: the line is an error of the server's.
        ValueError: it is not JSON.
    """
    if not line.startswith("data:"):
        return _NOTHING
    content = line[len("data:") :].strip()
    if content == "[DONE]":
        return StreamEnd()
    event = json.loads(content)
    if event.get("error"):
        raise ServerSaidError(str(event["error"])[:300])
    usage = event.get("usage") or {}
    deltas = [choice.get("delta") or {} for choice in event.get("choices") or ()]
    text = "".join(delta.get(name) or "" for delta in deltas for name in _TEXTS)
    return Said(text, usage.get("completion_tokens"))
