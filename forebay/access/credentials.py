"""What a request brings to say who it is: one key or one token, in one header, once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from forebay.access.keys import PREFIX
from forebay.access.tokens import LONGEST_TOKEN, refused

KEY_HEADER: Final = b"x-api-key"
_BEARER: Final = re.compile(r"bearer +([\x21-\x7e]+) *", re.IGNORECASE)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")

RawHeaders = Sequence[tuple[bytes, bytes]]
"""A request's headers as they came, their names in lower case."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key or a token; its text is a secret."""

    text: str = field(repr=False)

    @property
    def is_key(self) -> bool:
        """Whether it has the form of an API key rather than of a token."""
        return self.text.startswith(PREFIX)


def read_credentials(headers: RawHeaders) -> Credentials | None:
    """Return what the request brings, None where it brings nothing.

    ``Authorization: Bearer`` and ``X-API-Key`` mean the same. Two of either, or both with
    different contents, are refused: who stands in between may have looked at the other one.

    Raises:
        NotAuthenticatedError: it is there and cannot be read.
    """
    bearers = values_of(headers, b"authorization")
    keys = values_of(headers, KEY_HEADER)
    if len(bearers) > 1 or len(keys) > 1:
        raise refused("the credentials are there twice; send them once")
    given = {_bearer(one) for one in bearers} | {_visible(one) for one in keys}
    if len(given) > 1:
        raise refused("Authorization and X-API-Key differ; send one of them")
    return Credentials(given.pop()) if given else None


def values_of(headers: RawHeaders, name: bytes) -> list[str]:
    """Return every value of a header, in the order in which they came."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def _bearer(value: str) -> str:
    found = _BEARER.fullmatch(value) if len(value) <= LONGEST_TOKEN + 16 else None
    if found is None:
        raise refused("Authorization must be of the form: Bearer KEY")
    return found[1]


def _visible(value: str) -> str:
    text = value.strip()
    if len(text) > LONGEST_TOKEN or not _VISIBLE.fullmatch(text):
        raise refused("X-API-Key must be a key")
    return text
