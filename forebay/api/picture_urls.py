"""Pictures that a request names by URL: fetched at the door, in bounded bytes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from forebay.admission.fetch import PictureFetcher
from forebay.admission.held import Hold
from forebay.api.disconnect import end
from forebay.core.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """Where a picture is. ``param``: the request's field, for messages; the rest as RawPicture."""

    url: str
    param: str
    side: int | None = None
    lossless: bool = False


async def fetch_all(
    fetcher: PictureFetcher | None, pictures: Sequence[PictureUrl], hold: Hold
) -> list[bytes]:
    """Return the bytes of each picture; ``hold`` has them when this returns.

    Raises:
        InvalidRequestError: pictures are not fetched here.
        ImageUrlError: one of them cannot be had; the others are given up.
        DoorFullError: there is no room for them at present.
    """
    if not pictures:
        return []
    if fetcher is None:
        raise InvalidRequestError(
            "pictures are not fetched from URLs here; send a data URL or base64",
            param=pictures[0].param,
        )
    fetching = [asyncio.ensure_future(_fetch(fetcher, one, hold)) for one in pictures]
    try:
        return await asyncio.gather(*fetching)
    finally:
        await end(*fetching)


async def _fetch(fetcher: PictureFetcher, picture: PictureUrl, hold: Hold) -> bytes:
    content = await fetcher.fetch(picture.url, picture.param)
    hold.grow_to(hold.bytes + len(content))
    return content
