"""Bodies are bounded: each one in bytes and in time, and all of them together in bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.admission.held import HeldBytes, Hold
from forebay.api.middleware.raw_headers import first_value
from forebay.api.parsing import parsed
from forebay.core.errors import BodyTooLargeError, BodyTooSlowError, InvalidRequestError

_SCOPE_KEY: Final = "forebay.held"

_SPOOL_BYTES: Final = 2**20
"""Of an uploaded file, before the framework's form goes to disk."""

_WIDEST: Final = re.compile(rb"[\xf0-\xff]|\\u[dD][89abAB]")
"""Letters of four bytes: as UTF-8, or as JSON escapes them."""

_TAKEN: Final = 3
"""Copies of a picture beside the body that it came in: the value, cut out, as bytes."""

T = TypeVar("T")


class BodyLimitMiddleware:
    """Raises, at the route's first read, what is wrong with a body's size.

    BodyTooLargeError: over the limit; a Content-Length over it is refused before a byte is read, a
    body without one is counted while it streams. DoorFullError: too many bytes are held already;
    what is announced must fit, but only what has come is held, for to announce costs nothing. It is
    given back with the response's end, or by ``let_go``. BodyTooSlowError: not all of it came
    within ``timeout_s`` of the first read. ``on_disk``: the limits of paths whose bodies go to disk
    as they come, so that little of them is ever held; they have as much more time as bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        held: HeldBytes,
        timeout_s: float,
        on_disk: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held = held
        self._timeout_s = timeout_s
        self._on_disk = on_disk or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its reads counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._on_disk.get(scope["path"], self._max_bytes)
        most = _SPOOL_BYTES if scope["path"] in self._on_disk else limit
        timeout_s = self._timeout_s * max(1.0, limit / self._max_bytes)
        declared = first_value(scope, b"content-length")
        encoding = first_value(scope, b"content-encoding").decode("latin-1")
        announced = int(declared) if declared.isdigit() else 0
        received, done = 0, False
        deadline: float | None = None
        with self._held.hold() as hold:
            scope[_SCOPE_KEY] = hold

            async def receive_counted() -> Message:
                nonlocal received, done, deadline
                if done:
                    return await receive()
                _check_encoding(encoding)
                _check(announced, limit)
                hold.check(min(announced, most))
                deadline = deadline or asyncio.get_running_loop().time() + timeout_s
                message = await _in_time(receive, deadline, timeout_s)
                if message["type"] == "http.request":
                    received += len(message.get("body", b""))
                    _check(received, limit)
                    hold.grow_to(min(received, most))
                    done = not message.get("more_body", False)
                return message

            await self._app(scope, receive_counted, send)


async def _in_time(receive: Receive, deadline: float, timeout_s: float) -> Message:
    try:
        async with asyncio.timeout_at(deadline):
            return await receive()
    except TimeoutError as error:
        raise BodyTooSlowError(f"the body did not arrive within {timeout_s:g} s") from error


def _check_encoding(encoding: str) -> None:
    """Refuse what would have to be unpacked first: its size would be known only afterwards."""
    if encoding.strip().lower() not in ("", "identity"):
        raise InvalidRequestError(
            f"Content-Encoding {encoding[:40]!r} is not undone here: send the body as it is",
            param="Content-Encoding",
        )


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLargeError(f"the body has {size} bytes or more, the limit is {limit}")


async def read_body(request: Request) -> bytes:
    """Read the body without the framework keeping it for as long as the answer takes."""
    pieces = [chunk async for chunk in request.stream()]
    hold, size = _hold_of(request), sum(map(len, pieces))
    hold.grow_by_copies(size)  # the pieces, and the whole
    body = b"".join(pieces)
    hold.shrink_to(max(0, hold.bytes - size))
    return body


async def read_parsed(request: Request, parse: Callable[[bytes], T]) -> tuple[T, bytes]:
    """Read a body of JSON; return what ``parse`` makes of it, and the body itself.

    Held beside the body are its text and the values, whose letters may take several bytes each;
    and, once it is read, the values and what is taken out of them: a picture's base64, cut out of
    its data URL and then as bytes.

    Raises:
        DoorFullError: all requests together would hold more than they may.
    """
    body = await read_body(request)
    hold = _hold_of(request)
    hold.grow_by_copies(max(_TAKEN, 2 * _letter_bytes(body)) * len(body))
    read = await parsed(parse, body)
    hold.shrink_to((1 + _TAKEN) * len(body))
    return read, body


def hold_copy(request: Request, size: int) -> None:
    """Hold so many bytes more. Raises DoorFullError as ``hold_files``."""
    _hold_of(request).grow_by_copies(size)


def hold_files(request: Request, form: FormData, *, digested: bool) -> None:
    """Hold what is made of a form's files when they are read: contents beside what is in memory.

    ``digested``: a second time, for the digest of an idempotency key.

    Raises:
        DoorFullError: all requests together would hold more than they may.
    """
    hold = _hold_of(request)
    files = [one.size or 0 for _, one in form.multi_items() if isinstance(one, UploadFile)]
    spooled = sum(min(size, _SPOOL_BYTES) for size in files)
    hold.grow_by_copies(spooled + (sum(files) if digested else 0))


def _letter_bytes(body: bytes) -> int:
    """Return what a letter of a text in the body may take: the widest one counts for all of it."""
    if body.isascii() and (b"\\" not in body or b"\\u" not in body):
        return 1  # a picture's base64, most often: seen in a hundredth of the time of what follows
    return 4 if _WIDEST.search(body) else 2


def let_go(request: HTTPConnection) -> None:
    """Give back what a request's body holds, once nothing of it is kept but the task."""
    _hold_of(request).shrink_to(0)


def _hold_of(request: HTTPConnection) -> Hold:
    hold: Hold = request.scope[_SCOPE_KEY]
    return hold
