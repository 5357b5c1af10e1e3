"""Server-sent events, read from bytes as they come in.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MOST_EVENT_BYTES: Final = 2**20
"""Bytes of one event; a chunk of an answer takes a few hundred."""

_BOM: Final = b"\xef\xbb\xbf"


class EventTooLargeError(Exception):
    """An event, or a line, is longer than any that an answer needs."""


class EventSplitter:
    """Bytes in, the data of whole events out. Lines end with LF, CR LF or CR, as the form allows.

    Comments and the fields ``event``, ``id`` and ``retry`` mean nothing to an answer and are
    dropped. An event that the stream breaks off in is none.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of every event that ``chunk`` completes; it must be read to its end.

        Raises:
            EventTooLargeError: an event is over the limit.
        """
        if not chunk:
            return
        ends_in_cr = chunk.endswith(b"\r")
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = ends_in_cr
        *whole, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for end in whole:
            self._line += end
            data = self._take_line()
            if data is not None:
                yield data
        self._line += rest
        self._bound()

    def _take_line(self) -> bytes | None:
        """Take the line that has ended; return an event's data when it was the empty one."""
        line = bytes(self._line)
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
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
        if len(self._line) + self._held > MOST_EVENT_BYTES:
            raise EventTooLargeError(f"an event is over {MOST_EVENT_BYTES} bytes")
