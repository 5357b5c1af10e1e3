"""Server-sent events, read from bytes as they come, with the place that a reader resumes at.

Lines end with LF, CR LF or CR, and with nothing else: what text libraries take for the end of a
line (U+2028, U+0085 ...) stands in answers as any other letter.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from forebay.client.errors import UnexpectedReplyError

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
        self._line = bytearray()
        self._fields: dict[str, str] = {}
        self._data: list[str] = []
        self._held = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[SentEvent]:
        """Yield every event that ``chunk`` completes; it must be read to its end.

        Raises:
            UnexpectedReplyError: an event is over the limit, or is no UTF-8.
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
            if found := self._take_line():
                yield found
        self._line += rest
        if self._held + len(self._line) > MOST_EVENT_BYTES:
            raise UnexpectedReplyError(f"an event is over {MOST_EVENT_BYTES} bytes")

    def _take_line(self) -> SentEvent | None:
        try:
            line = self._line.decode()
        except UnicodeDecodeError as error:
            raise UnexpectedReplyError("an event is no UTF-8") from error
        self._held += len(self._line)
        self._line.clear()
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
