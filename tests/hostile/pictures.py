"""Files that are not the pictures they seem to be, without end, from a seed."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random

from PIL import Image

from tests.hostile.attack import SECRET

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
OTHER_FORMATS = ("TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "DDS")
MAGIC = (
    *(b"%PDF-1.7\n", b"PK\x03\x04", b"\x7fELF", b"MZ\x90\x00", b"\x1f\x8b\x08", b"Rar!\x1a\x07"),
    *(b"\x00\x00\x00\x18ftypheic", b"\x00\x00\x00\x20ftypavif", b"\x00\x00\x00\x20ftypisom"),
    *(b"8BPS\x00\x01", b"II*\x00", b"MM\x00*", b"\x00\x00\x01\x00", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    *(b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"P6\n9 9\n255\n", b"FORM", b"RIFF\x10\x00\x00\x00AVI "),
    *(b"<?xml version='1.0'?><svg ", b"<html>", b"#!/bin/sh\n", b"<?php ", b"{}", b"\x00" * 8),
)
PICTURE_MAGIC = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "WEBP": b"RIFF\xff\xff\x00\x00WEBP",
    "GIF": b"GIF89a",
    "BMP": b"BM",
}
PAYLOADS = (
    b"<script>alert(1)</script>",
    b"<?php system($_GET['c']); ?>",
    b"=1;/*",
    b"\n#!/bin/sh\nrm -rf /\n",
    b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
    b"%PDF-1.7\n1 0 obj\n",
)


def noise(form: str, rng: Random, mode: str = "RGB") -> bytes:
    """Return a valid picture whose data cannot be guessed, so that a cut in it is a loss."""
    size = (rng.randrange(60, 200), rng.randrange(60, 200))
    raw = rng.randbytes(size[0] * size[1] * len(Image.new(mode, (1, 1)).getbands()))
    out = io.BytesIO()
    options = {"progressive": rng.random() < 0.5} if form == "JPEG" else {}
    Image.frombytes(mode, size, raw).save(out, form, **options)
    return out.getvalue()


def of_another_format(rng: Random) -> bytes:
    """Return a file off the allow-list: a whole one, or its first bytes and anything behind."""
    if rng.random() < 0.5:
        return noise(rng.choice(OTHER_FORMATS), rng)
    return rng.choice(MAGIC) + rng.randbytes(rng.randrange(1, 5000))


def truncated(rng: Random) -> bytes:
    """Return the beginning of a valid picture: from its first byte to two thirds."""
    whole = noise(rng.choice(FORMATS), rng)
    return whole[: max(1, int(len(whole) * rng.uniform(0, 0.66)))]


def polyglot(rng: Random) -> bytes:
    """Return a picture's first bytes, and behind them what another program would run."""
    other = rng.choice((rng.choice(PAYLOADS) + SECRET.encode(), noise(rng.choice(FORMATS), rng)))
    return PICTURE_MAGIC[rng.choice(FORMATS)] + other


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack("!I", len(content)) + name + content + struct.pack("!I", check)


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    head = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    ends = (*chunks, chunk(b"IEND", b""))
    return PICTURE_MAGIC["PNG"] + chunk(b"IHDR", head) + b"".join(ends)


def _zeros(size: int) -> bytes:
    squeezed = zlib.compressobj(9)
    pieces = [squeezed.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join([*pieces, squeezed.flush()])


def _png_giant(rng: Random) -> bytes:
    side = rng.randrange(8_000, 2**31 - 1)
    return _png(side, rng.randrange(8_000, 60_000), chunk(b"IDAT", _zeros(2**21)))


def _png_short(rng: Random) -> bytes:
    """Within the limit in pixels, with too few of them."""
    side = rng.randrange(2_000, 7_000)
    return _png(side, side, chunk(b"IDAT", _zeros(side * side // 2)))


def _png_text(rng: Random) -> bytes:
    text = chunk(b"zTXt", b"Comment\x00\x00" + _zeros(80 * 2**20))
    profile = chunk(b"iCCP", b"profile\x00\x00" + _zeros(80 * 2**20))
    pixels = zlib.compress(bytes(50 * 151))
    return _png(50, 50, rng.choice((text, profile)), chunk(b"IDAT", pixels[: rng.randrange(9)]))


def _gif_giant(rng: Random) -> bytes:
    whole = noise("GIF", rng, "L")
    return (
        whole[:6] + struct.pack("<HH", *(rng.randrange(8_000, 65_536) for _ in "wh")) + whole[10:]
    )


def _bmp_giant(rng: Random) -> bytes:
    width, height = rng.randrange(7_100, 2**31), rng.choice((1, -1)) * rng.randrange(7_100, 2**31)
    about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, rng.choice((0, 1)), 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 2**20, 0, 0, 54) + about + rng.randbytes(500)


def _webp_giant(rng: Random) -> bytes:
    canvas = (rng.randrange(8_000, 2**24).to_bytes(3, "little") for _ in "wh")
    inside = b"VP8X" + struct.pack("<I", 10) + b"\x02\x00\x00\x00" + b"".join(canvas)
    return b"RIFF" + struct.pack("<I", len(inside) + 4) + b"WEBP" + inside + rng.randbytes(300)


def _jpeg_giant(rng: Random) -> bytes:
    whole = bytearray(noise("JPEG", rng))
    at = min(i for i in (whole.find(b"\xff\xc0\x00\x11"), whole.find(b"\xff\xc2\x00\x11")) if i > 0)
    whole[at + 5 : at + 9] = struct.pack("!HH", *(rng.randrange(8_000, 65_501) for _ in "hw"))
    return bytes(whole)


_BOMBS = (
    *(_png_giant, _png_short, _png_text),
    *(_gif_giant, _bmp_giant, _webp_giant, _jpeg_giant),
)


def bomb(rng: Random) -> bytes:
    """Return a small file that would be large: in pixels, or in what is compressed beside them."""
    return rng.choice(_BOMBS)(rng)


def damaged(rng: Random) -> bytes:
    """Return a valid picture with some bytes changed: it may still be one."""
    whole = bytearray(noise(rng.choice(FORMATS), rng))
    for _ in range(rng.randrange(1, 30)):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    return bytes(whole)


def laden(rng: Random) -> bytes:
    """Return a valid picture with something behind it, or in its metadata."""
    payload = rng.choice(PAYLOADS) + SECRET.encode()
    form = rng.choice(FORMATS)
    if form == "JPEG":
        whole = noise(form, rng)
        comment = b"\xff\xfe" + (len(payload) + 2).to_bytes(2, "big") + payload
        return whole[:2] + comment + whole[2:] + payload
    return noise(form, rng) + payload
