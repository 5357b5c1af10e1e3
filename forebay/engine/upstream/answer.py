"""An answer in the making, read from a server's event stream. Bytes in, text out; no I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from forebay.core.events import Choice, FinishReason, TokenLogprob, Usage
from forebay.core.request import SamplingParams
from forebay.engine.upstream.calls import CallWriter
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

_CALLED: Final = frozenset({"tool_calls", "function_call"})
"""An answer's end, where functions were on offer; what was called is in its text."""

_MOST_CHARACTERS_A_TOKEN: Final = 256
_MOST_BYTES_A_TOKEN: Final = 2**13
_MOST_EVENTS_A_TOKEN: Final = 8
_SPARE: Final = 4096
_SPARE_BYTES: Final = 2**20
"""Bounds what a server that does not stop can send: far over what ``max_tokens`` can come to."""

_MOST_COUNTED: Final = 2**53
"""A number of tokens beyond this is none, and not every reader of JSON could hold it."""

DONE: Final = b"[DONE]"

_UNASKED: Final = "The upstream answered with a call of a tool, which was not asked for."
_TOO_MUCH: Final = "the upstream sent more than an answer holds"
_NO_FORM: Final = "the upstream sent a chunk of no known form"


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of one of the answers, and how many tokens it took as far as the server tells."""

    index: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(slots=True)
class _Growing:
    """One answer in the making."""

    texts: list[str] = field(default_factory=list)
    calls: CallWriter = field(default_factory=CallWriter)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason | None = None


class AnswerReader:
    """Reads the answers to one request, ``sampling.n`` of them. ``done``: nothing follows.

    ``hidden``: words of the server's messages that are not passed on. ``tools``: functions are on
    offer, so that an answer may call them.
    """

    def __init__(
        self, sampling: SamplingParams, hidden: Sequence[str] = (), *, tools: bool = False
    ) -> None:
        self.done = False
        self._tools = tools
        self._hidden = hidden
        self._events = EventSplitter()
        self._answers = [_Growing() for _ in range(sampling.n)]
        self._usage: Usage | None = None
        self._tokens = 0
        most = sampling.n * sampling.max_tokens
        self._characters_left = most * _MOST_CHARACTERS_A_TOKEN + _SPARE
        self._bytes_left = most * _MOST_BYTES_A_TOKEN + _SPARE_BYTES
        self._events_left = most * _MOST_EVENTS_A_TOKEN + _SPARE

    @property
    def whole(self) -> bool:
        """Whether every answer has its end."""
        return all(answer.reason is not None for answer in self._answers)

    @property
    def usage(self) -> Usage:
        """The server's count; without one ours of the answer, and 0 for the prompt: not known."""
        return self._usage or Usage(0, self._tokens)

    def feed(self, chunk: bytes) -> Iterator[Delta]:
        """Yield the new text that ``chunk`` completes, all of it before an error is raised.

        Raises:
            RejectedError: the server says that it is the request's fault.
            BrokenOffError: it says something else than an answer.
        """
        for data in self._split(chunk):
            if data.strip() == DONE:
                self.done = True
                return
            yield from self._read(data)

    def choices(self) -> list[Choice]:
        """Return the answers, once the stream has ended.

        Raises:
            RejectedError: the server gives fewer than were asked for.
            BrokenOffError: the stream ended before they did.
        """
        choices = [
            Choice("".join(answer.texts), answer.reason, tuple(answer.logprobs))
            for answer in self._answers
            if answer.reason is not None
        ]
        asked = len(self._answers)
        if len(choices) == asked:
            return choices
        unbegun = sum(answer.reason is None and not answer.texts for answer in self._answers)
        if self.done and choices and len(choices) + unbegun == asked:
            raise RejectedError(
                "upstream_failed",
                f"The upstream gave {len(choices)} of the {asked} answers that were asked for.",
            )
        raise BrokenOffError("the upstream ended its stream before the answer's end")

    def _split(self, chunk: bytes) -> Iterator[bytes]:
        try:
            for data in self._events.feed(chunk):
                self._bound(data)
                yield data
        except EventTooLargeError as error:
            raise BrokenOffError(_TOO_MUCH, str(error)) from error

    def _bound(self, data: bytes) -> None:
        self._events_left -= 1
        self._bytes_left -= len(data)
        if self._events_left < 0 or self._bytes_left < 0:
            raise BrokenOffError(_TOO_MUCH, "events" if self._events_left < 0 else "bytes")

    def _read(self, data: bytes) -> Iterator[Delta]:
        chunk = _parse(data)
        if (error := _error_in(chunk)) is not None:
            raise self._fault(error)
        try:
            usage = _usage_in(chunk)
            self._usage = usage or self._usage
            for choice in chunk.get("choices") or ():
                if (delta := self._take(choice, usage)) is not None:
                    yield delta
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise BrokenOffError(_NO_FORM, repr(error)) from error

    def _take(self, choice: dict[str, Any], usage: Usage | None) -> Delta | None:
        """Add what a chunk has for one answer; return it where there is something."""
        index = _whole_number(choice.get("index", 0))
        answer = self._answers[index]
        delta, reason = choice.get("delta") or {}, choice.get("finish_reason")
        text = delta.get("content") or ""
        self._check(text)
        logprobs = tuple(map(_logprob, (choice.get("logprobs") or {}).get("content") or ()))
        if reason is not None:
            answer.reason = self._reason(reason)
        text += self._called(answer, delta.get("tool_calls") or ())
        if not text and not logprobs:
            return None
        tokens = len(logprobs) or 1
        if usage and len(self._answers) == 1:
            tokens = max(0, usage.completion_tokens - self._tokens)
        self._tokens += tokens
        answer.texts.append(text)
        answer.logprobs.extend(logprobs)
        return Delta(index, text, tokens, logprobs)

    def _called(self, answer: _Growing, deltas: Any) -> str:
        """Return the calls that are whole by now, as text. One that was cut off never is."""
        if deltas and not self._tools:
            raise RejectedError("upstream_failed", _UNASKED)
        called = answer.calls.take(deltas)
        if answer.reason is FinishReason.STOP:
            called += answer.calls.finish()
        self._check(called)
        return called

    def _check(self, text: Any) -> None:
        if not isinstance(text, str):
            raise TypeError("content is no text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BrokenOffError("the upstream sent half of a character") from error
        self._characters_left -= len(text)
        if self._characters_left < 0:
            raise BrokenOffError(_TOO_MUCH, "characters")

    def _reason(self, reason: Any) -> FinishReason:
        word = str(reason)
        if word in _CALLED:
            if not self._tools:
                raise RejectedError("upstream_failed", _UNASKED)
            return FinishReason.STOP
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


def _whole_number(value: Any) -> int:
    """Return an answer's index. Raises ValueError when it is none: -1 would be the last one's."""
    if not isinstance(value, int) or value < 0:
        raise ValueError("index is no whole number")
    return value


def _logprob(raw: dict[str, Any]) -> TokenLogprob:
    alternatives = raw.get("top_logprobs") or ()
    top = tuple((_token_bytes(one), _finite(one["logprob"])) for one in alternatives)
    return TokenLogprob(_token_bytes(raw), _finite(raw["logprob"]), top)


def _finite(value: Any) -> float:
    """Return a number. Raises ValueError for one that JSON has no form for."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a log-probability is no number")
    return number


def _token_bytes(raw: dict[str, Any]) -> bytes:
    """Return a token's bytes; a server that does not tell them tells its text."""
    told_bytes = raw.get("bytes")
    if told_bytes is None:
        return str(raw["token"]).encode()
    if not isinstance(told_bytes, list):  # a number would be taken for a length
        raise TypeError("bytes are no list")
    return bytes(told_bytes)


def _usage_in(chunk: dict[str, Any]) -> Usage | None:
    counted = chunk.get("usage")
    if not counted:
        return None
    return Usage(_count(counted.get("prompt_tokens")), _count(counted.get("completion_tokens")))


def _count(value: Any) -> int:
    """Return a number of tokens. Raises ValueError where it cannot be one."""
    count = max(0, int(value or 0))
    if count > _MOST_COUNTED:
        raise ValueError("a count of tokens is no such count")
    return count
