"""Decodes one untrusted picture and writes it anew, small and plain. Runs in a decoder process.

What comes out carries nothing of what came in but its pixels: no metadata, no second file behind
the first, no animation.
"""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from forebay.admission.header import PictureHeader, fitted_size

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations in which width and height change places."""

_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")

_PNG_LEVEL = 3
"""A third of the time of the library's own level for a few per cent more bytes."""

Image.MAX_IMAGE_PIXELS = None  # the header's size is checked before and against Pillow's own


class DecodeError(Exception):
    """The bytes are not the picture that their header promises."""


def normalise(
    content: bytes, header: PictureHeader, side: int, quality: int | None
) -> tuple[bytes, int, int]:
    """Return (bytes, width, height): upright, on white, longest side at most ``side``.

    The bytes are a JPEG of that quality, or a PNG where ``quality`` is None.

    Only the decoder of the format in ``header`` is tried, and only if it agrees on the size.

    Raises:
        DecodeError: the decoder reads another size than the header said.
        Exception: whatever Pillow raises for damaged bytes (OSError, SyntaxError, ValueError ...).
    """
    with Image.open(io.BytesIO(content), formats=[header.format.value]) as opened:
        if opened.size != (header.width, header.height):
            raise DecodeError(
                f"the picture is {opened.size[0]}x{opened.size[1]} pixels, "
                f"its header says {header.width}x{header.height}"
            )
        if header.format == "JPEG":  # let the decoder shrink by eighths while it reads: less memory
            opened.draft(None, fitted_size(*opened.size, side))
        turned = opened.getexif().get(_ORIENTATION, 1) in _TURNED
        opened.load()
        upright = ImageOps.exif_transpose(opened)
    picture = _to_rgb(upright)
    # the header's size, not the drafted one, decides: it is what was priced
    declared = (header.height, header.width) if turned else (header.width, header.height)
    target = fitted_size(*declared, side)
    if picture.size != target:
        picture = picture.resize(target, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if quality is None:
        picture.save(out, "PNG", compress_level=_PNG_LEVEL)
    else:
        # 4:4:4: small coloured text stays legible; halved planes would save a fifth of the bytes
        picture.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue(), picture.width, picture.height


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in _SIXTEEN_BIT:  # Pillow's own conversion clips at 255 instead of scaling
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        ground = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(ground, coloured).convert("RGB")
    return picture.convert("RGB")
