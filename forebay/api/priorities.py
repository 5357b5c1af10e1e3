"""A priority as a client writes it, in a form's field or in JSON."""

from __future__ import annotations

from forebay.core.errors import InvalidRequestError
from forebay.core.request import Priority


def read_priority(given: str | int | None) -> Priority:
    """Return the priority of a name or a number, the normal one for none.

    Raises:
        InvalidRequestError: it is neither; the message says what it may be.
    """
    if given is None:
        return Priority.NORMAL
    try:
        return Priority.named(str(given))
    except ValueError as error:
        raise InvalidRequestError(str(error), param="priority") from error
