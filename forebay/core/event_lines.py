"""The lines of server-sent events, out of bytes as they come.

They end with LF, CR LF or CR, and with nothing else: what text libraries take for the end of a line
(U+2028, U+0085 ...) stands in answers as any other letter.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"


class EventLines:
    """Bytes in, whole lines out, without their ends; a byte order mark before all of it is none.

    What has come of a line that has not ended is kept: who feeds it bounds ``begun``.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._after_cr = False
        self._first = True

    @property
    def begun(self) -> int:
        """Bytes of the line that has not ended."""
        return len(self._line)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield every line that ``chunk`` completes; it must be read to its end."""
        if not chunk:
            return
        ends_in_cr = chunk.endswith(b"\r")
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = ends_in_cr
        *whole, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for end in whole:
            self._line += end
            yield self._take()
        self._line += rest

    def _take(self) -> bytes:
        line = bytes(self._line)
        self._line.clear()
        if self._first:
            self._first = False
            return line.removeprefix(_BOM)
        return line
