"""From untrusted bytes to a picture that may be stored: decoded elsewhere, normalised, bounded."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.admission.header import PictureHeader
from forebay.admission.pool import DecoderPool
from forebay.core.errors import InvalidImageError

DEFAULT_SIDE = 1024
DEFAULT_QUALITY = 85


@dataclass(frozen=True, slots=True)
class NormalisedImage:
    """A plain JPEG, or PNG where nothing may be lost. Width and height in pixels, upright."""

    content: bytes
    width: int
    height: int


class ImageNormaliser:
    """Turns a priced picture into its normalised bytes, in a decoder process."""

    def __init__(self, pool: DecoderPool, *, quality: int = DEFAULT_QUALITY) -> None:
        self._pool = pool
        self._quality = quality

    async def normalise(
        self, content: bytes, header: PictureHeader, side: int, *, lossless: bool = False
    ) -> NormalisedImage:
        """Decode ``content`` and write it anew with its longest side at most ``side`` pixels.

        ``lossless``: every pixel stays as it is, but where the picture must shrink.

        Raises:
            InvalidImageError: the bytes are not the picture that ``header`` promises.
            QueueFullError: too many bytes wait for a decoder.
        """
        job = {
            "format": header.format.value,
            "width": header.width,
            "height": header.height,
            "side": side,
            "quality": None if lossless else self._quality,
        }
        reply, picture = await self._pool.run(job, content)
        if "error" in reply:
            raise InvalidImageError(reply["error"])
        return NormalisedImage(picture, reply["width"], reply["height"])
