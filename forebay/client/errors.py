"""What may go wrong, as a client sees it; the codes are those of ``docs/errors.md``."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import httpx

from forebay.core.errors import ForebayError, all_errors

_KNOWN: Final = {one.code: one for one in all_errors()}
_PASSING: Final = frozenset({408, 425, 429, 502, 503, 504, 507})
"""Statuses that pass, from whatever stands in front of the server too."""

_MOST_TOLD: Final = 300
_MOST_RETRY_AFTER_S: Final = 86_400.0


class ClientError(Exception):
    """Base of all. ``code``: stable word. ``mend``: what to do.

    ``retryable``: the same may succeed later. ``retry_after``: seconds until then, where known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        mend: str,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.mend = mend
        self.retryable = retryable
        self.retry_after = retry_after


class UnreachableError(ClientError):
    """No whole reply came, for as long as the client had patience."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            code="unreachable",
            mend="See that the server runs and that the address is right; then call again.",
            retryable=True,
        )


class UnexpectedReplyError(ClientError):
    """A reply that no Forebay gives: something else listens there, or stands in between."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            code="unexpected_reply",
            mend="See what answers at this address: it is no tasks API that this client knows.",
        )


class RefusedError(ClientError):
    """The server said no, and nothing was done. ``status``: of HTTP. ``param``: field at fault.

    ``request_id``: what the server's log has it under.
    """

    statuses: ClassVar[frozenset[int]] = frozenset()

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        retry_after: float | None = None,
        param: str | None = None,
        request_id: str | None = None,
    ) -> None:
        known = _KNOWN.get(code)
        super().__init__(
            message,
            code=code,
            mend=known.mend if known else "Read the message.",
            retryable=known.retryable if known else status in _PASSING,
            retry_after=retry_after,
        )
        self.status = status
        self.param = param
        self.request_id = request_id


class InvalidError(RefusedError):
    """The request is not one that can be honoured, as it is."""

    statuses = frozenset({400, 405, 413, 415, 422, 431})


class NotAllowedError(RefusedError):
    """The key is missing, is not good, or may not do this."""

    statuses = frozenset({401, 403})


class NotFoundError(RefusedError):
    """No such task, model or path."""

    statuses = frozenset({404})


class ConflictError(RefusedError):
    """The task has ended already, or the idempotency key belongs to another request."""

    statuses = frozenset({409})


class BusyError(RefusedError):
    """There is no room or nobody to answer for the moment, after all patience."""

    statuses = frozenset({429, 503, 507})


def mend_of(code: str) -> str:
    """Return what to do upon an error of a task."""
    return _KNOWN.get(code, ForebayError).mend


def refusal_of(reply: httpx.Response) -> RefusedError:
    """Return the error that a reply, whose body has been read, tells of."""
    error = _error_object(reply)
    status, code = reply.status_code, error.get("code")
    kind = next((one for one in RefusedError.__subclasses__() if status in one.statuses), None)
    return (kind or RefusedError)(
        str(error.get("message") or reply.text[:_MOST_TOLD] or reply.reason_phrase),
        status=status,
        code=code if isinstance(code, str) else f"http_{status}",
        retry_after=_retry_after_s(reply),
        param=error.get("param") if isinstance(error.get("param"), str) else None,
        request_id=reply.headers.get("X-Request-Id"),
    )


def _error_object(reply: httpx.Response) -> dict[str, Any]:
    try:
        error = reply.json()["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {"message": error}


def _retry_after_s(reply: httpx.Response) -> float | None:
    """Return the header's seconds; a date, which Forebay does not send, is as good as none."""
    try:
        seconds = float(reply.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(seconds, _MOST_RETRY_AFTER_S) if math.isfinite(seconds) and seconds >= 0 else None
