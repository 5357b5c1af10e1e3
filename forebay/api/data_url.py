"""A picture inside a JSON request: a data URL (RFC 2397), plain base64, or the URL of one."""

from __future__ import annotations

from forebay.admission.content import Base64Content
from forebay.api.picture_urls import PictureUrl
from forebay.api.pictures import RawPicture
from forebay.core.errors import InvalidRequestError


def picture_in(
    text: str, param: str, *, side: int | None = None, lossless: bool = False
) -> RawPicture | PictureUrl:
    """Return the picture that ``text`` holds, or where it lies.

    Its media type is not believed; the bytes are looked at, and none is decoded here. ``param``:
    the field, for messages.

    Raises:
        InvalidRequestError: a data URL without base64.
        InvalidImageError: plainly not base64.
    """
    if "://" in text[:32] and text[:5].lower() != "data:":
        return PictureUrl(text, param, side, lossless)
    return RawPicture(Base64Content(_encoded(text, param), param), side, lossless)


def _encoded(text: str, param: str) -> str:
    """Return the base64 in a data URL, or the text itself."""
    if text[:5].lower() != "data:":
        return text
    comma = text.find(",")
    if comma < 0 or not text[5:comma].lower().endswith(";base64"):
        raise InvalidRequestError("a data URL must be of the form data:...;base64,...", param=param)
    return text[comma + 1 :]
