"""Pictures that a request names by URL: fetched at the door, in bounded bytes and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from forebay.admission.fetch import PictureFetcher
from forebay.admission.held import Hold
from forebay.api.disconnect import end
from forebay.api.services import Services
from forebay.core.errors import ForebayError, InvalidRequestError
from forebay.ops.metrics import Metrics
from forebay.ops.spans import span_of


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """Where a picture is. ``param``: the request's field, for messages; the rest as RawPicture."""

    url: str
    param: str
    side: int | None = None
    lossless: bool = False


async def fetch_all(services: Services, pictures: Sequence[PictureUrl], hold: Hold) -> list[bytes]:
    """Return the bytes of each picture; ``hold`` has them when this returns.

    Raises:
        InvalidRequestError: pictures are not fetched here.
        ImageUrlError: one of them cannot be had; the others are given up.
        DoorFullError: there is no room for them at present.
    """
    if not pictures:
        return []
    fetcher = services.fetcher
    if fetcher is None:
        raise InvalidRequestError(
            "pictures are not fetched from URLs here; send a data URL or base64",
            param=pictures[0].param,
        )
    fetching = [asyncio.ensure_future(_fetch(services, fetcher, one, hold)) for one in pictures]
    try:
        return await asyncio.gather(*fetching)
    finally:
        await end(*fetching)


async def _fetch(
    services: Services, fetcher: PictureFetcher, picture: PictureUrl, hold: Hold
) -> bytes:
    with span_of(services.spans, "fetch picture"):
        content = await _counted(services.metrics, fetcher, picture)
    hold.grow_to(hold.bytes + len(content))
    return content


async def _counted(metrics: Metrics, fetcher: PictureFetcher, picture: PictureUrl) -> bytes:
    began, kept = time.monotonic(), fetcher.is_fresh(picture.url)
    try:
        content = await fetcher.fetch(picture.url, picture.param)
    except ForebayError:
        metrics.fetches.labels("refused").inc()
        raise
    metrics.fetches.labels("kept" if kept else "fetched").inc()
    metrics.fetch_seconds.observe(time.monotonic() - began)
    return content
