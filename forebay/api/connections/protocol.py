"""uvicorn's HTTP protocol, bounded where a client alone decides how long it goes on.

What a client may do before there is a request, or when nobody listens to it any more: open
connections and say nothing, drip headers or a body, send headers without end, take an answer and
not read it. A late body's clean refusal is the application's (``BodyLimitMiddleware``); here is
what ends the connection of one who drips all the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, ClassVar, Final, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from forebay.api.connections.crowd import Crowd, Network
from forebay.api.connections.joined import JoinedWrites
from forebay.api.error_forms import error_response
from forebay.core.errors import (
    ForebayError,
    HeadersTooLargeError,
    HeadersTooSlowError,
    InvalidRequestError,
    TransferCodingError,
)
from forebay.core.neighbours import Neighbours

LEAST_BYTES_A_SECOND: Final = 2**12
"""A body that comes faster than this is left to the application, which knows what it may take."""

_GRACE_S: Final = 5.0
"""What the application has to refuse a late body before its connection is ended."""

_LINGER_S: Final = 1.0
"""What a refused client has to read why: closed at once, bytes of its own would reset it."""

_FIELD_BYTES: Final = 4
"""Of a header beside its name and value."""

_CODING: Final = b"chunked"
"""The one transfer coding that the parser undoes; of others it drops the name, and no more."""

_FORM_PATH: Final = "/v1/"
"""Whose form of errors is used where no path is known yet."""


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """Times in seconds, sizes in bytes.

    ``header_s``: for a request's first line and headers. ``receive_s``: for its body after them,
    and a second more for each ``LEAST_BYTES_A_SECOND`` of it.
    ``send_s``: longest that a client leaves an answer unread. ``connections_of_one``: address,
    but for ``proxies``, who speak for many.
    """

    header_s: float = 10.0
    header_bytes: int = 2**16
    receive_s: float = 60.0
    send_s: float = 30.0
    connections: int = 8192
    connections_of_one: int = 2048
    proxies: tuple[Network, ...] = ()


class Phase(Enum):
    """What a connection's client is sending."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()
    REFUSED = auto()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. ``bounded_protocol`` makes the class that a server uses."""

    bounds: ClassVar[ConnectionBounds]
    crowd: ClassVar[Crowd]
    tell: Callable[[ForebayError], None]
    """Told of every refusal."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._phase = Phase.NOTHING
        self._requests = 0
        self._head_bytes = 0  # that the parser has told of
        self._fed_bytes = 0  # that it was fed before the headers ended
        self._body_bytes = 0  # since its time was last extended
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._fault: ForebayError | None = None  # for which we left the parser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, and give it the time of its first headers."""
        super().connection_made(transport)
        if fault := self.crowd.enter(self._address):
            self._refuse(fault)
        else:
            self._reading = self.loop.call_later(self.bounds.header_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.crowd.leave(self._address)
        self._listen_until(None)
        self._write_until(None)
        self._give_up()
        super().connection_lost(exc)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def data_received(self, data: bytes) -> None:
        """Take what the client sends, as far as it is within the bounds."""
        if self._refused:
            return
        before = self._phase, self._requests
        if self._phase is Phase.NOTHING:
            self._begin_head()
        super().data_received(data)
        after = self._phase, self._requests
        if after == before == (Phase.HEAD, self._requests):
            self._count_fed(len(data))
        elif after != before and not self._refused:
            # most requests come whole, and need no timer
            self._listen_until(self._patience())

    @property
    def _refused(self) -> bool:
        return self._phase is Phase.REFUSED

    def _patience(self) -> float | None:
        if self._phase is Phase.HEAD:
            return self.bounds.header_s
        return self.bounds.receive_s + _GRACE_S if self._phase is Phase.BODY else None

    def _listen_until(self, seconds: float | None) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self._phase is Phase.BODY and self.flow.read_paused:  # it is us who do not listen
            self._listen_until(self._patience())
        elif self._extends():
            self._listen_until(self._body_bytes / LEAST_BYTES_A_SECOND)
            self._body_bytes = 0
        elif self._phase is Phase.HEAD:
            self._refuse(HeadersTooSlowError(f"the headers took over {self.bounds.header_s:g} s"))
        else:
            self.transport.abort()

    def _extends(self) -> bool:
        """Whether a body has come fast enough, and anybody wants it still."""
        wanted = self._phase is Phase.BODY and not self.cycle.response_complete
        return wanted and self._body_bytes >= LEAST_BYTES_A_SECOND

    # what the parser tells

    def _begin_head(self) -> None:
        self._phase = Phase.HEAD
        self._head_bytes = self._fed_bytes = 0

    def _count_fed(self, size: int) -> None:
        """Count what belongs to a header that has not ended: nobody is told of it before."""
        self._fed_bytes += size
        if self._fed_bytes > self.bounds.header_bytes:
            self._refuse(self._too_large())

    def _too_large(self) -> ForebayError:
        return HeadersTooLargeError(f"the headers have over {self.bounds.header_bytes} bytes")

    def on_message_begin(self) -> None:
        """A request's first byte has come."""
        super().on_message_begin()
        self._requests += 1
        self._begin_head()

    def on_url(self, url: bytes) -> None:
        """A part of its path has come."""
        self._tell_size(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer of a body in chunks, has come."""
        self._tell_size(len(name) + len(value) + _FIELD_BYTES)
        if self._phase is Phase.HEAD:  # who stands in front has not judged a trailer
            super().on_header(name, value)

    def _tell_size(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.bounds.header_bytes:
            self._leave_parser(self._too_large())

    def _leave_parser(self, fault: ForebayError) -> NoReturn:
        self._fault = fault
        raise httptools.HttpParserError  # the base class's way out: send_400_response

    def on_headers_complete(self) -> None:
        """What follows is the body, if it comes in a form that is known."""
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and b",".join(codings).strip().lower() != _CODING:
            self._leave_parser(_unknown(codings))
        self._phase = Phase.BODY
        self._body_bytes = 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # not an upgrade, which is none of ours
            self.cycle.transport = JoinedWrites(self.transport, self.loop)  # type: ignore[assignment]
            self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A part of the body has come."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._phase = Phase.NOTHING
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser, or we in its midst, could not take, in the form of all errors."""
        self._refuse(self._fault or InvalidRequestError(msg))

    # what goes out

    def _refuse(self, error: ForebayError) -> None:
        """Say why, where no other answer is due or half said, and end the connection."""
        self.tell(error)
        self._phase = Phase.REFUSED
        if self._unanswered and not self._unanswered[-1].more_body:
            # what came before is whole: it has its answer, and what follows is not listened to
            self._unanswered[-1].keep_alive = False
            self._listen_until(None)
            return
        due = len(self._unanswered) > 1 or any(one.response_started for one in self._unanswered)
        self._give_up()
        if due or self.crowd.crushed(self._address):
            self.transport.abort()
            return
        self.transport.write(_answer(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._listen_until(_LINGER_S)

    def _give_up(self) -> None:
        """Tell all whose answers are due that nobody is there: the base class tells the last."""
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._unanswered.clear()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        self._write_until(self.bounds.send_s)

    def resume_writing(self) -> None:
        """It has read."""
        self._write_until(None)
        super().resume_writing()

    def on_response_complete(self) -> None:
        """An answer is written; what the system has not taken of the last one must be read."""
        if self._unanswered:
            self._unanswered.popleft().transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()
        if self._phase is Phase.BODY:  # of the request that is answered: a next one waits for it
            self._listen_until(_GRACE_S)
        self._bound_closing()

    def timeout_keep_alive_handler(self) -> None:
        """No further request has come."""
        super().timeout_keep_alive_handler()
        self._bound_closing()

    def _bound_closing(self) -> None:
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._write_until(self.bounds.send_s)

    def _write_until(self, seconds: float | None) -> None:
        if self._writing is not None:
            self._writing.cancel()
        self._writing = None if seconds is None else self.loop.call_later(seconds, self._unread)

    def _unread(self) -> None:
        self.transport.abort()


def bounded_protocol(
    bounds: ConnectionBounds,
    tell: Callable[[ForebayError], None],
    neighbours: Neighbours | None = None,
) -> type[BoundedProtocol]:
    """Return the class for one server: its connections are counted together, and neighbours'."""
    members = {
        "bounds": bounds,
        "crowd": Crowd(bounds.connections, bounds.connections_of_one, bounds.proxies, neighbours),
        "tell": staticmethod(tell),
    }
    return type("ServerProtocol", (BoundedProtocol,), members)


def _unknown(codings: list[bytes]) -> ForebayError:
    """Return what RFC 9112 (6.1) has a server say of a transfer coding that it does not know."""
    named = b", ".join(codings).decode("latin-1")
    return TransferCodingError(
        f"Transfer-Encoding {named[:40]!r} is not undone here: only chunked is, alone",
        param="Transfer-Encoding",
    )


def _answer(error: ForebayError) -> bytes:
    told = error_response(_FORM_PATH, error)
    status = HTTPStatus(told.status_code)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in told.raw_headers]
    lines += [b"connection: close", b"", bytes(told.body)]
    return b"\r\n".join(lines)
