"""The way to the doors: which one next, and what its replies mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import httpx

from tests.chaos.answers import Question
from tests.chaos.history import History, Refused, Unsure

REFUSALS = frozenset(
    {"queue_full", "storage_full", "tenant_over_quota", "rate_limited", "invalid_request"}
)
"""Codes that say that nothing was taken in. Any other leaves a client unsure."""

TASK_ENDS = frozenset(
    {"cancelled", "expired", "dead_letter", "inference_failed", "upstream_failed", "answer_changed"}
)
"""Codes by which a stream says how the task ended; any other tells of the stream alone."""

PATIENCE = httpx.Timeout(15.0, read=60.0)
"""Longer than any fault holds a door still: a client that goes would cancel its task."""


class Doors:
    """One client's way in. After a reply that did not come the next door is tried."""

    def __init__(self, http: httpx.AsyncClient, urls: Sequence[str], history: History) -> None:
        self.http = http
        self.history = history
        self._urls = urls
        self._turn = 0

    @property
    def url(self) -> str:
        return self._urls[self._turn % len(self._urls)]

    def next(self, turn: int | None = None) -> None:
        """Go to the next door, or to the one whose turn it is."""
        self._turn = self._turn + 1 if turn is None else turn

    def not_taken(self, question: Question, reply: httpx.Response) -> None:
        """Note a reply that is no acceptance, for what it says."""
        code = code_of(reply)
        known = code in REFUSALS
        self.history.note(Refused(question.name, code) if known else Unsure(question.name, code))


def reuse_of(reply: httpx.Response) -> str | None:
    """Return how an accepted request gets another one's answer, if it does."""
    said = reply.headers.get("X-Forebay-Cache", "miss")
    return None if said == "miss" else said


def code_of(reply: httpx.Response) -> str:
    """Return the error's code, whichever form the contract gives it."""
    try:
        body = reply.json()
    except ValueError:
        return f"HTTP {reply.status_code}"
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else body.get("code")
    return str(code or f"HTTP {reply.status_code}")


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event: its place, if it names one, and what it says."""

    place: str | None
    name: str
    data: str


async def sse_events(reply: httpx.Response) -> AsyncIterator[SseEvent]:
    """Yield whole events; one that breaks off is none."""
    place: str | None = None
    name, data = "message", list[str]()
    async for line in reply.aiter_lines():
        field, _, value = line.partition(": ")
        if not line:
            if data:
                yield SseEvent(place, name, "\n".join(data))
            place, name, data = None, "message", []
        elif field == "id":
            place = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
