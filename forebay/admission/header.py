"""A picture's format and size, read from its first bytes without decoding anything.

Five formats are known (the allow-list); all else is refused. Pure functions that look at a few
bytes here and there, in a bounded number of steps. Sources: the formats' own specifications
(ITU T.81, RFC 2083, GIF89a, RFC 9649, BMP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from forebay.admission.content import Content
from forebay.core.errors import InvalidImageError


class PictureFormat(StrEnum):
    """Accepted formats, by the names that Pillow uses."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a file says of itself. Pixels, as stored (an EXIF turn is not applied)."""

    format: PictureFormat
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


Size = tuple[int, int]

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers; C4, C8 and CC are tables and an extension."""

_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length."""

_JPEG_STEPS = 4096
"""Segments and padding bytes read before the frame; 64 KiB each, whole files have some hundreds."""


def read_header(content: Content) -> PictureHeader:
    """Return the format and size that the first bytes of ``content`` declare.

    Raises:
        InvalidImageError: none of the accepted formats, cut short, or without a pixel.
    """
    form = _sniff(content[:12])
    if form is None:
        raise InvalidImageError("the file is not a JPEG, PNG, WEBP, GIF or BMP picture")
    size = _READERS[form](content)
    if size is None:
        raise InvalidImageError(f"the {form} header is cut short or damaged")
    if size[0] < 1 or size[1] < 1:
        raise InvalidImageError(f"the {form} header declares a size of {size[0]}x{size[1]} pixels")
    return PictureHeader(form, *size)


def fitted_size(width: int, height: int, longest_side: int) -> Size:
    """Return the (width, height) of a picture once its longest side is at most ``longest_side``."""
    longest = max(width, height)
    if longest <= longest_side:
        return width, height
    scale = longest_side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def _sniff(start: bytes) -> PictureFormat | None:
    if start.startswith(b"\xff\xd8\xff"):
        return PictureFormat.JPEG
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return PictureFormat.PNG
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return PictureFormat.WEBP
    if start.startswith((b"GIF87a", b"GIF89a")):
        return PictureFormat.GIF
    if start.startswith(b"BM"):
        return PictureFormat.BMP
    return None


def _jpeg(content: Content) -> Size | None:
    at, end = 2, len(content)
    for _ in range(_JPEG_STEPS):
        step = content[at : at + 4]
        if len(step) < 4 or step[0] != 0xFF:
            return None
        marker = step[1]
        if marker == 0xFF:  # padding between segments
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_FRAMES:
            if at + 9 > end:
                return None
            return _big(content, at + 7, 2), _big(content, at + 5, 2)
        else:
            length = _big(step, 2, 2)
            if length < 2 or marker in (0xD8, 0xD9, 0xDA):
                return None
            at += 2 + length
    return None


def _png(content: Content) -> Size | None:
    if len(content) < 24 or content[12:16] != b"IHDR":
        return None
    return _big(content, 16, 4), _big(content, 20, 4)


def _gif(content: Content) -> Size | None:
    return None if len(content) < 10 else (_little(content, 6, 2), _little(content, 8, 2))


def _bmp(content: Content) -> Size | None:
    if len(content) < 26:
        return None
    if _little(content, 14, 4) == 12:  # the OS/2 form has 16-bit sides
        return _little(content, 18, 2), _little(content, 20, 2)
    # a negative height means rows from the top down
    height = int.from_bytes(content[22:26], "little", signed=True)
    return _little(content, 18, 4), abs(height)


def _webp(content: Content) -> Size | None:
    if len(content) < 30:
        return None
    match content[12:16]:
        case b"VP8X":
            return _little(content, 24, 3) + 1, _little(content, 27, 3) + 1
        case b"VP8L" if content[20:21] == b"\x2f":
            bits = _little(content, 21, 4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 " if content[23:26] == b"\x9d\x01\x2a":
            return _little(content, 26, 2) & 0x3FFF, _little(content, 28, 2) & 0x3FFF
    return None


def _big(content: Content, at: int, size: int) -> int:
    return int.from_bytes(content[at : at + size], "big")


def _little(content: Content, at: int, size: int) -> int:
    return int.from_bytes(content[at : at + size], "little")


_READERS: dict[PictureFormat, Callable[[Content], Size | None]] = {
    PictureFormat.JPEG: _jpeg,
    PictureFormat.PNG: _png,
    PictureFormat.GIF: _gif,
    PictureFormat.BMP: _bmp,
    PictureFormat.WEBP: _webp,
}
