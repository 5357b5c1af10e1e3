"""How long a call goes on trying, and how long it pauses in between."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from forebay.client.errors import ClientError

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0


class Patience:
    """Of one call: bounded in time, and so in tries, for there is a pause before each.

    Pauses grow, and are never alike, so that many clients do not come back at once.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.renew()

    def renew(self) -> None:
        """It got on: what comes now is a new trouble."""
        self._pause_s = FIRST_PAUSE_S
        self._until = time.monotonic() + self._patience_s

    async def wait(self, fault: ClientError, at_least_s: float = 0.0) -> None:
        """Return when it is time to try again.

        Raises:
            ClientError: ``fault`` itself, at once, where that would be too late.
        """
        told_s = max(at_least_s, fault.retry_after or 0.0)
        pause_s = max(self._pause_s, told_s) * random.uniform(1.0, 1.25)  # noqa: S311 - no secret
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        if time.monotonic() + pause_s > self._until:
            raise fault
        await asyncio.sleep(pause_s)
