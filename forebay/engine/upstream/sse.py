"""The data of server-sent events, read from bytes as they come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from forebay.core.event_lines import EventLines

MOST_EVENT_BYTES: Final = 2**20
"""Bytes of one event; a chunk of an answer takes a few hundred."""


class EventTooLargeError(Exception):
    """An event, or a line, is longer than any that an answer needs."""


class EventSplitter:
    """Bytes in, the data of whole events out.

    Comments and the fields ``event``, ``id`` and ``retry`` mean nothing to an answer and are
    dropped. An event that the stream breaks off in is none.
    """

    def __init__(self) -> None:
        self._lines = EventLines()
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of every event that ``chunk`` completes; it must be read to its end.

        Raises:
            EventTooLargeError: an event is over the limit.
        """
        for line in self._lines.feed(chunk):
            data = self._take_line(line)
            if data is not None:
                yield data
        self._bound()

    def _take_line(self, line: bytes) -> bytes | None:
        """Take a line that has ended; return an event's data when it was the empty one."""
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data.clear()
            self._held = 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._held += len(value) + 1
            self._bound()
        return None

    def _bound(self) -> None:
        if self._lines.begun + self._held > MOST_EVENT_BYTES:
            raise EventTooLargeError(f"an event is over {MOST_EVENT_BYTES} bytes")
