"""From untrusted bytes to a picture that may be stored: decoded elsewhere, normalised, bounded."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from forebay.admission.content import Base64Content, Content
from forebay.admission.header import PictureHeader
from forebay.admission.pool import DecoderPool
from forebay.core.errors import InvalidImageError

DEFAULT_QUALITY = 85
KEPT_BYTES = 32 * 2**20
"""Of pictures that were normalised last: a few hundred."""

_HASHED_HERE = 512 * 1024
"""More bytes are hashed on a thread; so many take less time than to hand them over and back."""


@dataclass(frozen=True, slots=True)
class NormalisedImage:
    """A plain JPEG, or PNG where nothing may be lost. Width and height in pixels, upright.

    ``sha256``: of the content, in hex; what it is called wherever it is kept.
    """

    content: bytes
    width: int
    height: int
    sha256: str


class ImageNormaliser:
    """Turns a priced picture into its normalised bytes, in a decoder process.

    The same bytes, wanted in the same way, are decoded once: who asks meanwhile waits for the same
    answer, and of the last pictures the normalised bytes are kept (``kept_bytes`` in all).
    """

    def __init__(
        self, pool: DecoderPool, *, quality: int = DEFAULT_QUALITY, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._pool = pool
        self._quality = quality
        self._kept = _Kept(kept_bytes)
        self._under_way: dict[bytes, _Shared] = {}

    async def normalise(
        self, content: Content, header: PictureHeader, side: int, *, lossless: bool = False
    ) -> NormalisedImage:
        """Decode ``content`` and write it anew with its longest side at most ``side`` pixels.

        ``lossless``: every pixel stays as it is, but where the picture must shrink.

        Raises:
            InvalidImageError: the bytes are not the picture that ``header`` promises.
            QueueFullError: too many bytes wait for a decoder.
        """
        quality = None if lossless else self._quality
        body = content.encoded if isinstance(content, Base64Content) else content[:]
        name = await _name(body, f"{side} {quality} {type(content).__name__}")
        if (kept := self._kept.get(name)) is not None:
            return kept
        shared = self._under_way.get(name)
        if shared is None:
            job = {
                "format": header.format.value,
                "width": header.width,
                "height": header.height,
                "side": side,
                "quality": quality,
                "base64": isinstance(content, Base64Content),
            }
            shared = _Shared(asyncio.create_task(self._decoded(name, job, body)))
            self._under_way[name] = shared
        return await self._wait(name, shared)

    async def _wait(self, name: bytes, shared: _Shared) -> NormalisedImage:
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting:
                if self._under_way.get(name) is shared:
                    del self._under_way[name]
                shared.task.cancel()

    async def _decoded(self, name: bytes, job: dict[str, Any], body: bytes) -> NormalisedImage:
        reply, picture = await self._pool.run(job, body)
        if "error" in reply:
            raise InvalidImageError(reply["error"])
        sha256 = (await _digest(picture)).hex()
        image = NormalisedImage(picture, reply["width"], reply["height"], sha256)
        self._kept.keep(name, image)
        return image


@dataclass(slots=True)
class _Shared:
    """A decoding for which several may wait; it is given up when the last of them has gone."""

    task: asyncio.Task[NormalisedImage]
    waiting: int = 0


class _Kept:
    """The pictures used last, up to so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._images: OrderedDict[bytes, NormalisedImage] = OrderedDict()

    def get(self, name: bytes) -> NormalisedImage | None:
        image = self._images.get(name)
        if image is not None:
            self._images.move_to_end(name)
        return image

    def keep(self, name: bytes, image: NormalisedImage) -> None:
        if len(image.content) > self._most_bytes:
            return
        self._images[name] = image
        self._bytes += len(image.content)
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._images.popitem(last=False)[1].content)


async def _name(body: bytes, wanted: str) -> bytes:
    """Return what only the same bytes, wanted in the same way, are called."""
    return await _digest(body, f"{wanted}\n".encode())


async def _digest(body: bytes, before: bytes = b"") -> bytes:
    digest = hashlib.sha256(before)
    if len(body) <= _HASHED_HERE:
        digest.update(body)
    else:
        await asyncio.to_thread(digest.update, body)
    return digest.digest()
