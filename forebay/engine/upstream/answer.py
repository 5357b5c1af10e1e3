"""An answer in the making, read from a server's event stream. Bytes in, text out; no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from forebay.core.events import FinishReason, Usage
from forebay.engine.upstream.faults import BrokenOffError, RejectedError, rejection, told
from forebay.engine.upstream.sse import EventSplitter, EventTooLargeError

REASONS: Final = {
    "stop": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
"""What servers call an answer's end, and what it is here."""

_UNASKED: Final = frozenset({"tool_calls", "function_call"})

_MOST_CHARACTERS_A_TOKEN: Final = 256
_MOST_EVENTS_A_TOKEN: Final = 8
_SPARE: Final = 4096
"""Bounds what a server that does not stop can send: far over what ``max_tokens`` can come to."""

DONE: Final = b"[DONE]"

_TOO_MUCH: Final = "the upstream sent more than an answer holds"
_NO_FORM: Final = "the upstream sent a chunk of no known form"


@dataclass(frozen=True, slots=True)
class Piece:
    """New text, and how many tokens it took as far as the server tells; one where it does not."""

    text: str
    tokens: int


class AnswerReader:
    """Reads one answer. ``reason`` is set when the answer is whole, ``done`` when nothing follows.

    ``hidden``: words of the server's messages that are not passed on.
    """

    def __init__(self, max_tokens: int, hidden: Sequence[str] = ()) -> None:
        self.reason: FinishReason | None = None
        self.done = False
        self._hidden = hidden
        self._events = EventSplitter()
        self._texts: list[str] = []
        self._usage: Usage | None = None
        self._tokens = 0
        self._characters_left = max_tokens * _MOST_CHARACTERS_A_TOKEN + _SPARE
        self._events_left = max_tokens * _MOST_EVENTS_A_TOKEN + _SPARE

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self._texts)

    @property
    def usage(self) -> Usage:
        """The server's count; without one ours of the answer, and 0 for the prompt: not known."""
        return self._usage or Usage(0, self._tokens)

    def feed(self, chunk: bytes) -> list[Piece]:
        """Return the new text that ``chunk`` completes.

        Raises:
            RejectedError: the server says that it is the request's fault.
            BrokenOffError: it says something else than an answer.
        """
        pieces = []
        for data in self._split(chunk):
            if data.strip() == DONE:
                self.done = True
                break
            piece = self._read(data)
            if piece is not None:
                pieces.append(piece)
        return pieces

    def end(self) -> FinishReason:
        """Return why the answer ended. Raises BrokenOffError when the stream ended before it."""
        if self.reason is None:
            raise BrokenOffError("the upstream ended its stream before the answer's end")
        return self.reason

    def _split(self, chunk: bytes) -> list[bytes]:
        try:
            events = self._events.feed(chunk)
        except EventTooLargeError as error:
            raise BrokenOffError(_TOO_MUCH, str(error)) from error
        self._events_left -= len(events)
        if self._events_left < 0:
            raise BrokenOffError(_TOO_MUCH, "events")
        return events

    def _read(self, data: bytes) -> Piece | None:
        chunk = _parse(data)
        if (error := _error_in(chunk)) is not None:
            raise self._fault(error)
        try:
            usage = _usage_in(chunk)
            choice = _choice_in(chunk)
            text = (choice.get("delta") or {}).get("content") or ""
            reason = choice.get("finish_reason")
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise BrokenOffError(_NO_FORM, repr(error)) from error
        self._usage = usage or self._usage
        piece = self._take(text, usage)
        if reason is not None:
            self.reason = self._reason(reason)
        return piece

    def _take(self, text: Any, usage: Usage | None) -> Piece | None:
        if not isinstance(text, str):
            raise BrokenOffError(_NO_FORM, "content is no text")
        if not text:
            return None
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BrokenOffError("the upstream sent half of a character") from error
        self._characters_left -= len(text)
        if self._characters_left < 0:
            raise BrokenOffError(_TOO_MUCH, "characters")
        tokens = usage.completion_tokens - self._tokens if usage else 1
        tokens = max(tokens, 0)
        self._tokens += tokens
        self._texts.append(text)
        return Piece(text, tokens)

    def _reason(self, reason: Any) -> FinishReason:
        word = str(reason)
        if word in _UNASKED:
            raise RejectedError(
                "upstream_failed",
                "The upstream answered with a call of a tool, which was not asked for.",
            )
        if word not in REASONS:
            said = told(word, self._hidden)
            raise BrokenOffError("the upstream ended the answer for no known reason", said)
        return REASONS[word]

    def _fault(self, error: Any) -> Exception:
        message = error.get("message") if isinstance(error, dict) else error
        return rejection(error, None, self._hidden) or BrokenOffError(
            "the upstream ended the answer with an error", told(str(message), self._hidden)
        )


def _parse(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenOffError("the upstream sent an event that is not JSON") from error
    if not isinstance(chunk, dict):
        raise BrokenOffError(_NO_FORM, "no object")
    return chunk


def _error_in(chunk: dict[str, Any]) -> Any:
    if chunk.get("object") == "error":
        return chunk
    return chunk.get("error")


def _choice_in(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice; none is in a chunk that only counts."""
    for choice in chunk.get("choices") or ():
        if choice.get("index", 0) == 0:
            return dict(choice)
    return {}


def _usage_in(chunk: dict[str, Any]) -> Usage | None:
    counted = chunk.get("usage")
    if not counted:
        return None
    prompt, completion = counted.get("prompt_tokens"), counted.get("completion_tokens")
    return Usage(max(0, int(prompt or 0)), max(0, int(completion or 0)))
