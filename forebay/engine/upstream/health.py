"""Whether the server can answer: told by real answers, found out by asking for one."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from forebay.engine.upstream.faults import LONGEST_HOLD_S, UpstreamFaultError

log = structlog.get_logger("forebay.upstream")

CHECK_EVERY_S: Final = 5.0
"""How often a server that nothing was heard of is asked whether it is there."""

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 15.0


class Health:
    """``ready`` after a real answer, until asking for one fails. Used on one event loop.

    ``probe`` asks for a real answer and returns the model that gave it, ``check`` whether the
    server is there; both raise ``UpstreamFaultError``. A fault of a request makes the server
    *doubted*: no more requests are wanted (``accepting``) until a probe has told. So what waits is
    not sent to a server that is down, one delivery after the other.
    """

    def __init__(
        self, probe: Callable[[], Awaitable[str]], check: Callable[[], Awaitable[None]]
    ) -> None:
        self.ready = False
        self._probe = probe
        self._check = check
        self._doubts = 1
        """Faults since which no probe has begun and been answered."""
        self._heard = False
        self._hold_until = 0.0
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._verdict: asyncio.Future[bool] | None = None
        self._said = ""

    @property
    def accepting(self) -> bool:
        """Whether more requests are wanted now."""
        return self.ready and not self._doubts and self._hold_left() <= 0

    async def wait_accepting(self, timeout_s: float) -> None:
        """Return when more requests are wanted, or after ``timeout_s``."""
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_s
        while not self.accepting and (left := until - clock()) > 0:
            held = self._hold_left()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, held) if held > 0 else left):
                    await self._changed.wait()

    def heard(self) -> None:
        """Note a sign of life: there is no need to ask for one for a while."""
        self._heard = True

    def hold_off(self, seconds: float) -> None:
        """Want no more requests for so long: the server said that it is busy."""
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_HOLD_S)
        self._hold_until = max(self._hold_until, until)

    def doubt(self, fault: UpstreamFaultError) -> None:
        """Want no more requests until the server has answered again."""
        self._say(fault)
        self._doubts += 1
        self._wake.set()

    async def verdict(self, fault: UpstreamFaultError) -> bool:
        """Doubt the server, and return whether the next probe is answered."""
        self.doubt(fault)
        if self._verdict is None:
            self._verdict = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._verdict)

    async def watch(self) -> None:
        """Keep ``ready`` true to the server, until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            if not self._doubts:
                await self._keep_watch()
                pause_s = FIRST_PAUSE_S
            elif not await self._ask():
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _keep_watch(self) -> None:
        """Wait for the next check, or a doubt; doubt a server that does not pass the check."""
        self._heard = False
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_EVERY_S):
                await self._wake.wait()
        if self._doubts or self._heard:
            return
        try:
            await self._check()
        except UpstreamFaultError as fault:
            self.doubt(fault)

    async def _ask(self) -> bool:
        """Ask for a real answer; whether one came. Doubts of meanwhile need another probe."""
        await asyncio.sleep(max(0.0, self._hold_left()))
        doubts = self._doubts
        verdict, self._verdict = self._verdict, None
        well, began = False, asyncio.get_running_loop().time()
        try:
            model = await self._probe()
            well = True
            self._doubts -= doubts
        except UpstreamFaultError as fault:
            self._say(fault)
        finally:
            if verdict is not None:
                verdict.set_result(well)
        if well and not self.ready:
            took_s = asyncio.get_running_loop().time() - began
            log.info("upstream_ready", model=model, after_s=round(took_s, 2))
        elif self.ready and not well:
            log.error("upstream_away")
        self.ready = well
        if self.accepting:
            self._said = ""
            self._changed.set()
        return well

    def _hold_left(self) -> float:
        return self._hold_until - asyncio.get_running_loop().time()

    def _say(self, fault: UpstreamFaultError) -> None:
        """Log a fault once, however many requests and probes meet it."""
        if str(fault) != self._said:
            self._said = str(fault)
            log.warning("upstream_fault", reason=fault.why, detail=fault.detail)
