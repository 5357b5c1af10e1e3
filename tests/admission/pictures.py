"""Pictures of every kind, made with Pillow: the reference that the header reader is held to."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def picture(
    form: str = "JPEG",
    size: tuple[int, int] = (64, 48),
    mode: str = "RGB",
    colour: Any = (200, 30, 30),
    **save: Any,
) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, form, **save)
    return out.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG bomb: a few bytes that declare a giant of zeros."""
    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", rows)
        + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack("!I", len(content)) + name + content + struct.pack("!I", check)


def hostile() -> dict[str, bytes]:
    """Files that are not what they seem; every one must be refused, cleanly and soon."""
    jpeg, png, gif = picture(), picture("PNG", size=(300, 200)), picture("GIF", mode="L", colour=9)
    webp = picture("WEBP")
    return {
        "text": b"hello, I am a text file",
        "html": b"<html><script>alert(1)</script></html>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "zip": b"PK\x03\x04" + bytes(200),
        "pdf": b"%PDF-1.7\n" + bytes(200),
        "tiff": picture("TIFF"),
        "one-byte": b"\xff",
        "jpeg-start-only": jpeg[:3],
        "jpeg-half": picture(size=(400, 400), quality=95)[:1500],
        "jpeg-without-frame": b"\xff\xd8\xff\xe0\x00\x10" + bytes(14) + b"\xff\xd9",
        "jpeg-segment-past-end": b"\xff\xd8\xff\xe1\xff\xff" + bytes(10),
        "png-signature-only": png[:8],
        "png-header-only": png[:33],
        "png-broken-checksum": png[:40] + bytes([png[40] ^ 0xFF]) + png[41:],
        "png-bomb": png_that_claims(50_000, 50_000),
        "png-small-bomb": png_that_claims(20_000, 2_400),
        "png-zero": png_that_claims(0, 10),
        "gif-header-only": gif[:10],
        "gif-of-lies": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "webp-header-only": webp[:30],
        "bmp-of-lies": b"BM" + bytes(12) + struct.pack("<Iii", 40, 9_000, 5_000) + bytes(28),
        "bmp-huge": b"BM" + bytes(12) + struct.pack("<Iii", 40, 2**31 - 1, -(2**31)) + bytes(28),
        "polyglot-gif-in-jpeg": b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x10\x00\x10" + gif,
        "ribbon": picture("PNG", size=(5000, 2)),
    }
