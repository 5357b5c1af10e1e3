"""A picture's bytes as its client sent them: plain, or still in base64."""

from __future__ import annotations

import base64
import binascii
from typing import Final, Protocol

from forebay.core.errors import InvalidImageError

_SPACES: Final = b" \n\r\t\v\f"


class Content(Protocol):
    """Bytes of which any part can be looked at without the whole being decoded."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class Base64Content:
    """Base64, kept as it is: a slice of it decodes the groups that it lies in, and no more.

    What is refused is so refused at the price of its header, and what is admitted is decoded where
    its picture is, in a decoder process. Line breaks, which tools write, are taken out.
    """

    __slots__ = ("_param", "_size", "encoded")

    def __init__(self, text: str, param: str | None = None) -> None:
        """Take ``text``; raise InvalidImageError where its letters or its length are not base64's.

        Letters inside are seen only when they are decoded. ``param``: the field, for messages.
        """
        if not text.isascii():
            raise InvalidImageError(_NOT_BASE64, param=param)
        encoded = text.encode("ascii")
        if any(space in encoded for space in _SPACES):
            encoded = encoded.translate(None, _SPACES)
        if len(encoded) % 4:
            raise InvalidImageError(_NOT_BASE64, param=param)
        self.encoded: Final = encoded
        self._param = param
        self._size = len(encoded) // 4 * 3 - encoded[-2:].count(b"=")

    def __len__(self) -> int:
        """Return the bytes that it decodes to."""
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        """Return bytes of the picture. Raises InvalidImageError: these are not base64."""
        start, stop, step = part.indices(self._size)
        if step != 1:
            raise ValueError("base64 is read forwards, byte by byte")
        if stop <= start:
            return b""
        first, last = start // 3, (stop + 2) // 3
        decoded = decode_base64(self.encoded[first * 4 : last * 4], self._param)
        return decoded[start - first * 3 : stop - first * 3]


def decode_base64(encoded: bytes, param: str | None = None) -> bytes:
    """Return what ``encoded`` stands for, all of it or nothing.

    Raises:
        InvalidImageError: it is not base64.
    """
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise InvalidImageError(_NOT_BASE64, param=param) from error


_NOT_BASE64: Final = "the picture is not valid base64"
