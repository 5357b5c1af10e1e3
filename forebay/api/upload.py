"""A multipart form that is held in memory whole: one picture and a few texts.

The framework's reader calls back for every line and copies every file into a spool. Here the body,
which is bounded and counted, is cut at its boundary. Sources: RFC 2046, 5.1; RFC 7578.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from python_multipart.multipart import parse_options_header

from forebay.api.middleware.body_limit import read_body
from forebay.api.parsing import parsed
from forebay.core.errors import InvalidRequestError

MOST_HEADER_BYTES: Final = 2**13
"""Of one part."""

MOST_TEXT_BYTES: Final = 2**20
"""Of one field."""

_MOST_BOUNDARY: Final = 256
"""RFC 2046 allows 70 characters."""

_USUAL: Final = re.compile(r"multipart/form-data; boundary=([0-9A-Za-z'()+_,./:=?-]+)")
_PLAIN: Final = re.compile(
    rb'form-data; name="([^"\\;]*)"(?:; filename="([^"\\;]*)")?', re.IGNORECASE
)
"""How nearly every client writes it; else the framework's reader of such lines is asked."""

_PADDING: Final = b" \t"


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
        InvalidRequestError: the form is damaged, or has more than ``bounds``.
    """
    said = request.headers.get("Content-Type", "")
    if usual := _USUAL.fullmatch(said):
        boundary, charset = usual[1].encode("latin-1"), "utf-8"
    else:
        kind, options = parse_options_header(said)
        if kind != b"multipart/form-data":
            return UploadForm()
        boundary = options.get(b"boundary", b"")
        charset = _charset(options.get(b"charset", b"utf-8"))
    if not 0 < len(boundary) <= _MOST_BOUNDARY:
        raise InvalidRequestError("the multipart form has no boundary that can be used")
    body = await read_body(request)
    return await parsed(lambda whole: cut(whole, boundary, bounds, charset), body)


def cut(body: bytes, boundary: bytes, bounds: FormBounds, charset: str = "utf-8") -> UploadForm:
    """Return the fields of a whole body. Raises as ``read_upload``."""
    mark = b"--" + boundary
    at = _after_mark(body, _first(body, mark), mark)
    items: list[tuple[str, str | bytes]] = []
    files = 0
    ending = b"\r\n" + mark
    while at >= 0:
        name, is_file, start = _head(body, at, charset)
        end = body.find(ending, start)
        if end < 0:
            raise _damaged("a part has no end")
        content = body[start:end]
        files += is_file
        if files > bounds.files or len(items) + 1 - files > bounds.texts:
            raise _damaged(f"at most {bounds.files} files and {bounds.texts} texts are taken")
        items.append((name, content if is_file else _text(content, charset)))
        at = _after_mark(body, end + 2, mark)
    return UploadForm(tuple(items))


def _first(body: bytes, mark: bytes) -> int:
    """Return where the first part's mark is: at the beginning, or of a line after a preamble."""
    if body.startswith(mark):
        return 0
    at = body.find(b"\r\n" + mark)
    if at < 0:
        raise _damaged("its boundary does not occur")
    return at + 2


def _after_mark(body: bytes, at: int, mark: bytes) -> int:
    """Return where the part after the mark at ``at`` begins; -1 after the last one."""
    at += len(mark)
    if body.startswith(b"--", at):
        return -1
    while body[at : at + 1] in (b" ", b"\t"):
        at += 1
    if not body.startswith(b"\r\n", at):
        raise _damaged("a boundary does not end its line")
    return at + 2


def _head(body: bytes, at: int, charset: str) -> tuple[str, bool, int]:
    """Return a part's name, whether it is a file, and where its content begins."""
    end = body.find(b"\r\n\r\n", at, at + MOST_HEADER_BYTES)
    if end < 0:
        raise _damaged("the headers of a part have no end, or are too long")
    for line in body[at:end].split(b"\r\n"):
        field, _, value = line.partition(b":")
        if field.strip(_PADDING).lower() == b"content-disposition":
            name, is_file = _disposition(value.strip(_PADDING))
            return _decoded(name, charset), is_file, end + 4
    raise _damaged("a part has no Content-Disposition")


def _disposition(value: bytes) -> tuple[bytes, bool]:
    if plain := _PLAIN.fullmatch(value):
        return plain[1], plain[2] is not None
    _, options = parse_options_header(value)
    if b"name" not in options:
        raise _damaged('the Content-Disposition header of a part has no "name"')
    return options[b"name"], b"filename" in options


def _text(content: bytes, charset: str) -> str:
    if len(content) > MOST_TEXT_BYTES:
        raise _damaged(f"a field has {len(content)} bytes, the limit is {MOST_TEXT_BYTES}")
    return _decoded(content, charset)


def _decoded(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset)
    except UnicodeDecodeError:
        return content.decode("latin-1")  # what clients without UTF-8 have always sent


def _charset(said: bytes) -> str:
    try:
        return codecs.lookup(said.decode("latin-1")).name
    except LookupError:
        return "latin-1"


def _damaged(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"the multipart form is damaged: {what}")
