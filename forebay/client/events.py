"""What is heard of a task while it is followed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from forebay.client.errors import UnexpectedReplyError
from forebay.client.sse import SentEvent
from forebay.client.task import Task, task_of


@dataclass(frozen=True, slots=True)
class Queued:
    """It waits. ``position`` 1 is the next; ``eta_seconds``: when it may start, where known."""

    position: int | None
    tasks_ahead: int | None
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has it. ``status``: ``leased``, ``encoding``, ``prefill`` or ``decode``."""

    status: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What follows in the answer ``index``.

    ``place``: where to go on after it, for ``events(after=...)``; the last of several pieces that
    came at once has it.
    """

    index: int
    text: str
    logprobs: Mapping[str, Any] | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """A worker died: the text so far is void, and every answer starts over."""

    place: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The end, and the last event: done, failed or cancelled, as ``task.status`` says."""

    task: Task


Event = Queued | Started | Delta | Restart | Ended

INTERRUPTED: Final = "interrupted"
"""The server's word that the reading broke off; the client comes back by itself."""

_ENDS: Final = frozenset({"done", "error", "cancelled"})


def event_of(sent: SentEvent) -> Event | None:
    """Return what an event says, None for a kind that a later server may have.

    Raises:
        UnexpectedReplyError: it is not of the documented form.
    """
    try:
        told = json.loads(sent.data)
        if sent.name in _ENDS:
            return Ended(task_of(told))
        if sent.name == "queued":
            return Queued(told["position"], told["tasks_ahead"], told["eta_seconds"])
        if sent.name == "started":
            return Started(told["status"])
        if sent.name == "delta":
            return Delta(told["index"], told["text"], told.get("logprobs"), sent.place)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UnexpectedReplyError(f"an event {sent.name[:40]!r} cannot be read") from error
    return Restart(sent.place) if sent.name == "restart" else None
