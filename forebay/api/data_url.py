"""A picture inside a JSON request: a data URL (RFC 2397), plain base64, or the URL of one."""

from __future__ import annotations

import base64
import binascii

from forebay.api.intake import RawPicture
from forebay.api.picture_urls import PictureUrl
from forebay.core.errors import InvalidImageError, InvalidRequestError


def picture_in(
    text: str, param: str, *, side: int | None = None, lossless: bool = False
) -> RawPicture | PictureUrl:
    """Return the picture that ``text`` holds, or where it lies.

    Its media type is not believed; the bytes are looked at. ``param``: the field, for messages.

    Raises:
        InvalidRequestError: a data URL without base64.
        InvalidImageError: not base64.
    """
    if "://" in text[:32] and text[:5].lower() != "data:":
        return PictureUrl(text, param, side, lossless)
    return RawPicture(_picture_bytes(text, param), side, lossless)


def _picture_bytes(url: str, param: str) -> bytes:
    if url[:5].lower() == "data:":
        head, comma, encoded = url[5:].partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidRequestError(
                "a data URL must be of the form data:...;base64,...", param=param
            )
    else:
        encoded = url
    try:
        # tools that write base64 break it into lines
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        failure = InvalidImageError("the picture is not valid base64", param=param)
        raise failure from error
