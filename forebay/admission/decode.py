"""Decodes one untrusted picture and writes it anew, small and plain. Runs in a decoder process.

What comes out carries nothing of what came in but its pixels: no metadata, no second file behind
the first, no animation.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageFile

from forebay.admission.header import PictureHeader, fitted_size

_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture of that EXIF orientation upright."""

_SIXTEEN_BIT: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_WITH_ALPHA: Final = ("RGBA", "LA")
_RESIZABLE: Final = ("RGB", "L", "CMYK", *_WITH_ALPHA)
"""Modes in which pixels can be averaged."""

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
        # the header's size decides, not that of a draft: it is what was priced
        target = fitted_size(header.width, header.height, side)
        if header.format == "JPEG":  # let the decoder shrink by eighths while it reads: less memory
            opened.draft(None, target)
        turn = _UPRIGHT.get(_orientation(opened))
        opened.load()
        picture = _resizable(opened)
    if picture.size != target:
        picture = picture.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture = _on_white(picture)
    if turn is not None:
        picture = picture.transpose(turn)
    return _encoded(picture, quality), picture.width, picture.height


def import_codecs() -> None:
    """Import what pictures are decoded with, which else the first one would wait for."""
    Image.preinit()
    from PIL import TiffImagePlugin, WebPImagePlugin  # noqa: F401, PLC0415 - the first reads EXIF


def _orientation(opened: ImageFile.ImageFile) -> int:
    try:
        value = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged metadata is no reason to refuse the pixels
        return 1
    return value if isinstance(value, int) else 1


def _resizable(picture: Image.Image) -> Image.Image:
    """Return the pixels of a loaded picture in a mode in which they can be averaged."""
    if picture.mode in _SIXTEEN_BIT:  # Pillow's own conversion clips at 255 instead of scaling
        return picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "transparency" in picture.info or picture.mode in ("PA", "La", "RGBa"):
        return picture.convert("RGBA")
    return picture if picture.mode in _RESIZABLE else picture.convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode not in _WITH_ALPHA:
        return picture.convert("RGB")
    coloured = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")


def _encoded(picture: Image.Image, quality: int | None) -> bytes:
    out = io.BytesIO()
    if quality is None:
        picture.save(out, "PNG", compress_level=_PNG_LEVEL)
    else:
        # 4:4:4: small coloured text stays legible; halved planes would save a fifth of the bytes
        picture.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
