"""How often the same request came back because the server was busy.

Some servers say 429 of a request that is larger than they ever take. Sent again for ever, it would
be first in its line each time, and hold up what waits behind it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

MOST_ROUNDS: Final = 8
"""So often a request goes back to the queue without counting, before its own fault is asked for."""

MOST_KNOWN: Final = 1024
"""Requests that are remembered; past it the one forgotten came back longest ago."""


class Rounds:
    """Counts by the request's body: every delivery of a task has the same."""

    def __init__(self) -> None:
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    def are_over(self, body: bytes) -> bool:
        """Count another round; whether it was one too many, after which the count begins anew."""
        name = _name(body)
        count = self._counts.pop(name, 0) + 1
        if count > MOST_ROUNDS:
            return True
        self._counts[name] = count
        if len(self._counts) > MOST_KNOWN:
            self._counts.popitem(last=False)
        return False

    def end(self, body: bytes) -> None:
        """The request was answered."""
        if self._counts:
            self._counts.pop(_name(body), None)


def _name(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
