"""Server-sent events, read from bytes as they come, with the place that a reader resumes at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from forebay.client.errors import UnexpectedReplyError
from forebay.core.event_lines import EventLines

MOST_EVENT_BYTES: Final = 64 * 2**20
"""Of one event; the last one of a task has all of its answers."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event. ``place``: its ``id``, where it has one."""

    name: str
    data: str
    place: str | None = None


class EventReader:
    """Bytes in, whole events out. ``retry_s``: how long the server has readers wait, if it said."""

    def __init__(self) -> None:
        self.retry_s: float | None = None
        self._lines = EventLines()
        self._fields: dict[str, str] = {}
        self._data: list[str] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[SentEvent]:
        """Yield every event that ``chunk`` completes; it must be read to its end.

        Raises:
            UnexpectedReplyError: an event is over the limit, or is no UTF-8.
        """
        for line in self._lines.feed(chunk):
            if found := self._take_line(line):
                yield found
        if self._held + self._lines.begun > MOST_EVENT_BYTES:
            raise UnexpectedReplyError(f"an event is over {MOST_EVENT_BYTES} bytes")

    def _take_line(self, told: bytes) -> SentEvent | None:
        try:
            line = told.decode()
        except UnicodeDecodeError as error:
            raise UnexpectedReplyError("an event is no UTF-8") from error
        self._held += len(told)
        if not line:
            return self._take_event()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdecimal() and len(value) < 10:
            self.retry_s = int(value) / 1000
        elif name in ("event", "id"):
            self._fields[name] = value
        return None

    def _take_event(self) -> SentEvent | None:
        fields, data = self._fields, self._data
        self._fields, self._data, self._held = {}, [], 0
        if not data:
            return None
        return SentEvent(fields.get("event", "message"), "\n".join(data), fields.get("id"))
