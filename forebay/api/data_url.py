"""A picture inside a JSON request: a data URL (RFC 2397), or plain base64."""

from __future__ import annotations

import base64
import binascii

from forebay.core.errors import InvalidImageError, InvalidRequestError


def picture_bytes(url: str, param: str) -> bytes:
    """Return the bytes that ``url`` holds. Its media type is not believed; the bytes are looked at.

    Raises:
        InvalidRequestError: a URL that would have to be fetched, or a data URL without base64.
        InvalidImageError: not base64.
    """
    if url[:5].lower() == "data:":
        head, comma, encoded = url[5:].partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidRequestError(
                "a data URL must be of the form data:...;base64,...", param=param
            )
    elif "://" in url[:32]:
        raise InvalidRequestError(
            "pictures are not fetched from URLs here; send a data URL or base64", param=param
        )
    else:
        encoded = url
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        failure = InvalidImageError("the picture is not valid base64", param=param)
        raise failure from error
