"""How the door and a decoder process talk: one job, one reply, over the child's pipes.

A message is two lengths (network order), a JSON object and a run of bytes.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

LENGTHS: Final = struct.Struct("!II")
READY: Final = b"\x01"
"""Written once by a decoder process that has started."""

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 256 * 2**20


def pack(head: dict[str, Any], body: bytes = b"") -> list[bytes]:
    """Return the pieces of one message."""
    text = json.dumps(head).encode()
    return [LENGTHS.pack(len(text), len(body)), text, body]


def unpack_lengths(raw: bytes) -> tuple[int, int]:
    """Return (bytes of head, bytes of body). Raises ValueError for lengths that nobody sends."""
    head, body = LENGTHS.unpack(raw)
    if head > MAX_HEAD_BYTES or body > MAX_BODY_BYTES:
        raise ValueError(f"message of {head} and {body} bytes")
    return head, body
