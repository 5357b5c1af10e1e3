"""A request's pictures on their way into the store: decoded, put where workers look, safe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from forebay.admission.content import Content
from forebay.admission.cost import PricedPicture
from forebay.api.services import Services
from forebay.core.request import ImagePart, Tenant
from forebay.ops.spans import span_of


@dataclass(frozen=True, slots=True)
class RawPicture:
    """A picture as its client sent it. ``side``: wanted longest side once stored, in pixels.

    ``lossless``: it is not to be compressed any further.
    """

    content: Content
    side: int | None = None
    lossless: bool = False


class StoringPictures:
    """The pictures of one request, in order. What is put is not safe until it is settled."""

    def __init__(self, services: Services, tenant: Tenant) -> None:
        self.parts: list[ImagePart] = []
        self._services = services
        self._tenant = tenant
        self._unsettled: dict[str, float] = {}  # when the putting began, by SHA-256

    @property
    def safe(self) -> bool:
        """Whether there is nothing to settle."""
        return not self._unsettled

    async def store(self, raw: Sequence[RawPicture], priced: Sequence[PricedPicture]) -> None:
        """Decode, and put where workers find it what was not put a moment ago.

        One after the other: a refusal must not kill a decoder in the middle of its neighbour, and
        many pictures in one request must not hold up everyone else's one.
        """
        for picture, price in zip(raw, priced, strict=True):
            self.parts.append(await self._store(picture, price))

    async def settle(self) -> None:
        """Return when what was put survives a loss of power.

        Raises:
            StorageFullError, QueueUnavailableError: it may not; nobody may count on it.
        """
        await self._services.blobs.settle(list(self._unsettled))
        for sha256, began in self._unsettled.items():
            self._services.stored.note(self._tenant, sha256, began)

    def forget(self) -> None:
        """Rely on none of them as stored a moment ago: the queue does not know them."""
        self._services.stored.forget(self._tenant, [one.sha256 for one in self.parts])

    async def _store(self, raw: RawPicture, price: PricedPicture) -> ImagePart:
        services, started = self._services, time.monotonic()
        with span_of(services.spans, "decode picture"):
            picture = await services.images.normalise(
                raw.content, price.header, price.side, lossless=raw.lossless
            )
        services.metrics.decode_seconds.observe(time.monotonic() - started)
        if not services.stored.has(self._tenant, picture.sha256):
            began = services.stored.now()
            async with services.turns:
                await services.blobs.put(picture.content, self._tenant)
            self._unsettled[picture.sha256] = began
        return ImagePart(picture.sha256, picture.width, picture.height)
