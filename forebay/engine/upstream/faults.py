"""What can be wrong with a server elsewhere, and whose fault it is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

LONGEST_HOLD_S: Final = 60.0
"""A ``Retry-After`` is obeyed up to this; then the server is asked again."""

_MOST_TOLD: Final = 500
"""Characters of the server's own words that are passed on."""

_SHORTEST_SECRET: Final = 4
"""A shorter word is part of others."""

_CLIENTS_FAULT: Final = {400: "invalid_request", 413: "body_too_large", 422: "invalid_request"}
_BUSY: Final = frozenset({429, 503})
_PASSING: Final = frozenset({408, 425, 429, 503})
"""Not 502 and 504: a gateway has sent the request on, and what it did there may be the cause."""

_CODES: Final = {
    "context_length_exceeded": "prompt_too_long",  # OpenAI
    "exceed_context_size_error": "prompt_too_long",  # llama-server, as the error's type
    **{
        code: code
        for code in (
            "invalid_request",
            "invalid_constraint",
            "invalid_image",
            "image_too_large",
            "body_too_large",
            "prompt_too_long",
            "inference_failed",
        )
    },
}
"""Words with which a server says that this request will fail wherever it is sent."""

_MENDS: Final = {
    401: "Check upstream_api_key.",
    403: "Check upstream_api_key and what it may do.",
    404: "Check upstream_url and upstream_model.",
}

_ADDRESS: Final = re.compile(r"(?:data:\S{0,64};base64,|[a-zA-Z][a-zA-Z0-9+.-]{0,15}://)\S*")
_IP: Final = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")


class UpstreamFaultError(Exception):
    """Base. ``why``: a clause that clients may read; ``detail``: the rest, for the log alone."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(f"{why} ({detail})" if detail else why)
        self.why = why
        self.detail = detail


class UnreachableError(UpstreamFaultError):
    """No connection could be made: the request was not sent."""


class RefusedError(UpstreamFaultError):
    """An HTTP status instead of an answer, for no fault of the request that is known.

    ``busy``: for any request now, not for this one. ``passing``: the same request may be taken in
    a moment. ``retry_after``: seconds, where the server says.
    """

    def __init__(
        self, why: str, detail: str, *, status: int, retry_after: float | None = None
    ) -> None:
        super().__init__(why, detail)
        self.busy = status in _BUSY
        self.passing = status in _PASSING
        self.retry_after = retry_after


class BrokenOffError(UpstreamFaultError):
    """The request was sent, and no whole answer came back."""


class RejectedError(UpstreamFaultError):
    """The request's own fault; ``code`` is one of ``forebay.core.errors``, ``why`` a sentence."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def fault_of_response(
    status: int, retry_after: str | None, body: bytes, hidden: Sequence[str]
) -> UpstreamFaultError:
    """Return what a response without an answer means; ``hidden``: words not to be passed on."""
    error = _error_in(body)
    fault = rejection(error, status, hidden)
    if fault is not None:
        return fault
    said = told(_message_of(error), hidden)
    mend = "It redirects: set upstream_url to the final address." if 300 <= status < 400 else ""
    return RefusedError(
        f"the upstream answered HTTP {status}",
        " ".join(part for part in (said, _MENDS.get(status, mend)) if part),
        status=status,
        retry_after=_seconds(retry_after),
    )


def rejection(error: Any, status: int | None, hidden: Sequence[str]) -> RejectedError | None:
    """Return the fault when an error object, or the status, says that it is the request's own."""
    words = [error.get(name) for name in ("code", "type")] if isinstance(error, dict) else []
    codes = [_CODES[word] for word in words if isinstance(word, str) and word in _CODES]
    numbers = [status, *(word for word in words if isinstance(word, int))]
    codes += [_CLIENTS_FAULT[number] for number in numbers if number in _CLIENTS_FAULT]
    if not codes:
        return None
    said = told(_message_of(error), hidden) or "it does not say why"
    return RejectedError(codes[0], f"The upstream rejects the request: {said}")


def told(text: str, hidden: Sequence[str]) -> str:
    """Return a server's words as a client may read them: short, and without where it lies."""
    text = text[: 8 * _MOST_TOLD]
    text = _IP.sub("[address]", _ADDRESS.sub("[address]", text))
    for word in hidden:
        if len(word) >= _SHORTEST_SECRET:
            text = text.replace(word, "[hidden]")
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return text if len(text) <= _MOST_TOLD else text[: _MOST_TOLD - 1] + "…"


def _error_in(body: bytes) -> Any:
    """Return the error object of a response's body, or its text."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
    if isinstance(content, dict):
        return content.get("error") or content.get("detail") or content
    return content


def _message_of(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""


def _seconds(retry_after: str | None) -> float | None:
    """Read a ``Retry-After``: seconds or a date; None when it is neither."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            until = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        seconds = (until - datetime.now(UTC)).total_seconds()
    # written so that what is not a number is none either
    return min(seconds, LONGEST_HOLD_S) if seconds >= 0 else None
