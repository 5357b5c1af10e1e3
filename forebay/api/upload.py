"""A multipart form that is held in memory whole: one picture and a few texts.

The framework copies every file into a spool, piece by piece and through a thread. Here its reader
of such forms is given the whole body, which is bounded and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from forebay.api.charsets import form_charset
from forebay.api.middleware.body_limit import hold_copy, read_body
from forebay.api.parsing import parsed
from forebay.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_HEADER_BYTES: Final = 2**12
"""Of one line."""

MOST_TEXT_BYTES: Final = 2**20
"""Of one field."""

_MOST_BOUNDARY: Final = 256
"""RFC 2046 allows 70 characters."""


@dataclass(frozen=True, slots=True)
class UploadForm:
    """Fields in their order: a text is ``str``, a file ``bytes``."""

    items: tuple[tuple[str, str | bytes], ...] = ()

    def get(self, name: str, otherwise: str | None = None) -> str | bytes | None:
        """Return a field's last value, as forms have it."""
        return next((value for one, value in reversed(self.items) if one == name), otherwise)

    def names(self) -> set[str]:
        """Return which fields there are."""
        return {name for name, _ in self.items}


@dataclass(frozen=True, slots=True)
class FormBounds:
    """Most that one form may have."""

    files: int = 1
    texts: int = 500


async def read_upload(request: Request, bounds: FormBounds) -> UploadForm:
    """Read a request's form; one without fields where the body is no multipart form.

    Raises:
        InvalidRequestError: the form is damaged, has more than ``bounds``, or is written in an
            encoding that is not read here.
    """
    said = request.headers.get("Content-Type", "")
    kind, options = parse_options_header(said)
    if kind != b"multipart/form-data":
        return UploadForm()
    boundary = options.get(b"boundary", b"")
    charset = form_charset(said)
    if not 0 < len(boundary) <= _MOST_BOUNDARY:
        raise InvalidRequestError("the multipart form has no boundary that can be used")
    body = await read_body(request)
    hold_copy(request, len(body))
    return await parsed(lambda whole: cut(whole, boundary, bounds, charset), body)


def cut(body: bytes, boundary: bytes, bounds: FormBounds, charset: str = "utf-8") -> UploadForm:
    """Return the fields of a whole body. Raises as ``read_upload``."""
    parts = _Parts(bounds, charset)
    try:
        reader = MultipartParser(boundary, parts.callbacks(), max_header_size=MOST_HEADER_BYTES)
        reader.write(body)
        reader.finalize()
    except FormParserError as error:
        raise _damaged(str(error)) from error
    if not parts.ended:
        raise _damaged("it has no end")
    return UploadForm(tuple(parts.items))


class _Parts:
    """The parts of a form as its reader comes upon them."""

    def __init__(self, bounds: FormBounds, charset: str) -> None:
        self.items: list[tuple[str, str | bytes]] = []
        self.ended = False
        self._bounds = bounds
        self._charset = charset
        self._files = 0
        self._begin()

    def callbacks(self) -> MultipartCallbacks:
        """Return what the reader calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._header,
            "on_headers_finished": self._named,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._name, self._is_file = "", False
        self._disposition = self._header_name = self._header_value = b""
        self._content: list[bytes] = []

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _named(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _damaged('a part has no Content-Disposition with a "name"')
        self._name, self._is_file = (
            _decoded(options[b"name"], self._charset),
            b"filename" in options,
        )
        self._files += self._is_file
        texts = len(self.items) + 1 - self._files
        if self._files > self._bounds.files or texts > self._bounds.texts:
            most = self._bounds
            raise _damaged(f"at most {most.files} files and {most.texts} texts are taken")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _end(self) -> None:
        content = b"".join(self._content)
        self.items.append((self._name, content if self._is_file else _text(content, self._charset)))

    def _finish(self) -> None:
        self.ended = True


def _text(content: bytes, charset: str) -> str:
    if len(content) > MOST_TEXT_BYTES:
        raise _damaged(f"a field has {len(content)} bytes, the limit is {MOST_TEXT_BYTES}")
    return _decoded(content, charset)


def _decoded(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset)
    except UnicodeDecodeError:
        return content.decode("latin-1")  # what clients without UTF-8 have always sent


def _damaged(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"the multipart form is damaged: {what}")
