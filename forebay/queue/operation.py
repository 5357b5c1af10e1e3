"""One operation on the queue's server: its time, its errors, and what they say of the server."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Protocol, Self

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from forebay.core.errors import QueueUnavailableError
from forebay.queue.breaker import Breaker
from forebay.queue.patience import Patience

ANSWER_S: Final = 3.0
"""Longest that a worker's operation waits, for a connection and for retries included. Time in which
this process was too busy to listen is not counted (``Patience``)."""

DOOR_ANSWER_S: Final = 0.9
"""The same at the door, whose clients are to be told within a second."""

RETRY_AFTER_S: Final = 1.0

AWAY: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    OSError,
)
"""What says that the server cannot serve now. Any other error is an answer."""


class ServerAwayError(RedisConnectionError):
    """The breaker is open: the server is known to be away, and was not asked."""


class Line(Protocol):
    """The way to one server, as an operation meets it."""

    answer_s: float
    breaker: Breaker

    def drop_idle(self) -> None:
        """Dial anew before the next use: what is idle may lead to a server that is gone."""
        ...


class Operation:
    """An async context manager that turns every error of Redis, and silence, into one of ours.

    Raises QueueUnavailableError. The line's pool joins the operation of the task that asks it for
    a connection: so each call is bounded by its line's patience and counted by its breaker,
    without being told of either. ``within_s`` overrides the patience, which is the server's: what
    this process spends on other things is not counted (``Patience``).
    """

    def __init__(self, doing: str, within_s: float | None) -> None:
        self._doing = doing
        self._within_s = within_s
        self._patience = Patience(within_s or ANSWER_S)
        self._lines: dict[Line, int] = {}
        self._token: Token[Operation | None] | None = None

    async def __aenter__(self) -> Self:
        await self._patience.__aenter__()
        self._token = _CURRENT.set(self)
        return self

    def join(self, line: Line) -> None:
        """Count this operation for ``line``. Raises ServerAwayError while its breaker is open."""
        if line in self._lines:
            return
        if not line.breaker.admits():
            raise ServerAwayError("it has not answered lately, and is asked again in a moment")
        self._lines[line] = line.breaker.answers
        if self._within_s is None:
            self._patience.change(line.answer_s)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _CURRENT.reset(self._token)
        try:
            await self._patience.__aexit__(kind, error, trace)
        except TimeoutError as silence:
            error = silence
        if error is None or isinstance(error, Exception):
            _report(self._lines, error)
        if isinstance(error, (RedisError, OSError)):
            raise QueueUnavailableError(
                f"The queue's server did not answer while {self._doing}: {_why(error)}",
                retry_after=RETRY_AFTER_S,
            ) from error


def unavailable(doing: str, within_s: float | None = None) -> Operation:
    """Return the context of one operation; see ``Operation``."""
    return Operation(doing, within_s)


def current_operation() -> Operation | None:
    """Return the operation under way in this task."""
    return _CURRENT.get()


def _report(lines: Mapping[Line, int], error: Exception | None) -> None:
    for line, answers_before in lines.items():
        if isinstance(error, ServerAwayError):
            continue
        if not isinstance(error, AWAY):
            line.breaker.succeed()
        elif line.breaker.fail(answers_before):
            line.drop_idle()


def _why(error: Exception) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else repr(error))


_CURRENT: ContextVar[Operation | None] = ContextVar("queue_operation", default=None)
