"""Where a page of a listing ended, in a form that says nothing to its client and fits no other."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from forebay.core.errors import InvalidRequestError
from forebay.queue.ports import Listing

_END: Final = "\n"

_REFUSAL: Final = "cursor must be the next_cursor of a page of the same list"


def next_cursor(listing: Listing, tenant: str, cursor: str) -> str | None:
    """Return what asks for the page after ``cursor``, which is the queue's own; None at the end."""
    if not cursor:
        return None
    told = _END.join((listing.value, tenant, cursor)).encode()
    return base64.urlsafe_b64encode(told).rstrip(b"=").decode("ascii")


def read_cursor(listing: Listing, tenant: str, text: str) -> str:
    """Return the queue's own cursor; empty for the first page.

    Raises:
        InvalidRequestError: it is of no page, or of another list's or another tenant's.
    """
    if not text:
        return ""
    try:
        told = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        of_listing, of_tenant, cursor = told.decode().split(_END, 2)
    except (binascii.Error, ValueError) as error:
        raise refused() from error
    if (of_listing, of_tenant) != (listing.value, tenant):
        raise refused()
    return cursor


def refused() -> InvalidRequestError:
    """Return the refusal of what is no cursor of this list."""
    return InvalidRequestError(_REFUSAL, param="cursor")
