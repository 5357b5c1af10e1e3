"""What a log line may hold: fields by an allow-list, and nothing that a client has written.

Whoever needs another field adds it here, where it is seen what is written down.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from typing import Final

import structlog

from forebay.core.errors import ForebayError

_BY_THE_LOG: Final = frozenset(
    {"event", "level", "logger", "timestamp", "process", "exception", "dropped"}
)
_REQUESTS: Final = frozenset(
    {"request_id", "trace_id", "span_id", "method", "path", "status", "ms", "bytes_out", "caller"}
)
_AUDIT: Final = frozenset({"actor", "action", "target", "from", "outcome"})
_TASKS: Final = frozenset(
    {"task_id", "fence", "tokens", "code", "why", "attempt", "batch", "entry", "bytes", "format"}
)
_PROCESSES: Final = frozenset(
    {"after_s", "answered", "child", "detail", "during", "error", "folder", "free_tokens", "held"}
    | {"host", "kept_as", "life", "lines", "memory", "mend", "model", "over_s", "owner", "peak_mb"}
    | {"pid", "port", "reason", "removed", "task", "tasks", "waited_s", "worker", "workers"}
)
_ALERTS: Final = frozenset({"alert", "alerts", "channel", "file", "rule", "stage"})
ALLOWED: Final = _BY_THE_LOG | _REQUESTS | _AUDIT | _TASKS | _PROCESSES | _ALERTS

_MOST_CHARACTERS: Final = 500
_MOST_OF_A_TRACE: Final = 20_000
_DEEPEST: Final = 8
"""Causes and parts of an error that are shown."""

_TOLD_KINDS: Final = (OSError, RuntimeError, MemoryError, ImportError)
_TOLD_MODULES: Final = frozenset({"forebay", "redis", "torch"})
"""Errors whose words are of this machine. Those of others may quote what was asked."""


def keep_allowed_fields(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Drop every other field, naming it, and cut what is long."""
    del logger, method
    dropped = sorted(str(name) for name in event if name not in ALLOWED)
    kept = {name: _short(value, name) for name, value in event.items() if name in ALLOWED}
    return {**kept, "dropped": dropped} if dropped else kept


def keep_first_line(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Of a library's own line keep the first: what follows shows its objects, ours among them."""
    del logger, method
    event["event"] = str(event["event"]).strip().partition("\n")[0]
    return event


def write_exception(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Turn ``exc_info`` into a trace without local variables and without others' words."""
    del logger, method
    found = event.pop("exc_info", None)
    if found is True:  # the error that is being handled
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["exception"] = "\n".join(_trace(error, _DEEPEST))
    return event


def _trace(error: BaseException, depth: int) -> Iterator[str]:
    if not depth:
        yield "(more errors behind it)"
        return
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if behind is not None:
        yield from _trace(behind, depth - 1)
        yield "which led to:"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
    yield f"{type(error).__name__}: {_words(error)}"
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions[:_DEEPEST]:
            yield "of which:"
            yield from _trace(part, depth - 1)


def _words(error: BaseException) -> str:
    of_clients = isinstance(error, ForebayError) and error.status < 500
    module = type(error).__module__.partition(".")[0]
    if not of_clients and (isinstance(error, _TOLD_KINDS) or module in _TOLD_MODULES):
        return str(error)
    return "(its words are not written down: they may quote the request)"


def _short(value: object, name: str) -> object:
    most = _MOST_OF_A_TRACE if name == "exception" else _MOST_CHARACTERS
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= most else f"{text[:most]}..."
