"""Which pictures this process has stored a moment ago: nobody stores them again meanwhile."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from forebay.core.request import Tenant

RELIED_ON_S: Final = 30.0
"""A quarter of the time for which a picture is claimed when it is stored (``HOLD_S``): the rest is
left for a request's way into the queue. No sweep looks at what is younger than ten minutes."""

MOST_KNOWN: Final = 10_000
"""Pictures, some 200 bytes each."""


class StoredLately:
    """Many ask about one picture: load tests, retries, several questions in turn.

    The queue insists all the same that a task's pictures are claimed. Where it does not know them,
    ``forget`` what is known here and store them again. ``clock``: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[Tenant, str], float] = OrderedDict()

    def has(self, tenant: Tenant, sha256: str) -> bool:
        """Whether a tenant's picture was stored and claimed a moment ago."""
        return self._until.get((tenant, sha256), 0.0) > self._clock()

    def now(self) -> float:
        """Return the time that ``note`` wants of before a picture is stored."""
        return self._clock()

    def note(self, tenant: Tenant, sha256: str, began: float) -> None:
        """Remember a picture that is stored; ``began``: ``now`` before that."""
        name = (tenant, sha256)
        self._until[name] = began + RELIED_ON_S
        self._until.move_to_end(name)
        while len(self._until) > MOST_KNOWN:
            self._until.popitem(last=False)

    def forget(self, tenant: Tenant, sha256s: Iterable[str]) -> None:
        """Know nothing of these pictures."""
        for sha256 in sha256s:
            self._until.pop((tenant, sha256), None)
