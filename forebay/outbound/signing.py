"""Signatures of webhooks, by the Standard Webhooks specification, version 1 (symmetric)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64


def read_secrets(text: str) -> tuple[bytes, ...]:
    """Read secrets of the form ``whsec_`` and base64, apart by commas or white space.

    Raises ValueError for what is not of the form, never repeating it.
    """
    words = text.replace(",", " ").split()
    return tuple(_secret(number, word) for number, word in enumerate(words, 1))


def _secret(number: int, word: str) -> bytes:
    try:
        encoded = word.removeprefix(PREFIX)
        secret = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        secret = b""
    if not word.startswith(PREFIX) or not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        raise ValueError(
            f"secret {number} must be {PREFIX} followed by {LEAST_BYTES} to {MOST_BYTES} bytes in "
            "base64"
        )
    return secret


def sign(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``: one signature by each secret.

    While a secret is replaced, the old and the new one sign; a receiver needs only one of them.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret, signed, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
