"""Removes pictures that nobody needs, and never one that somebody does.

A picture is set aside before anyone is asked whether it is needed, and is put back if it is. A
request claims its pictures before it stores them. So either the claim came first, and the sweep
sees it, or the store comes after the renaming, finds the picture gone and writes it anew; what the
sweep removes is then only what it had set aside. No clock has a part in this: a sweeper may be
stopped anywhere for any time, and two may work at once. See docs/adr/0031.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, Self

import structlog
from redis.asyncio import Redis

from forebay.core.background import Background
from forebay.core.errors import ForebayError
from forebay.queue.connection import unavailable
from forebay.queue.ports import AsideName, BlobClaims, SweptBlobs
from forebay.queue.schema import SWEEP_EVERY_S, Keys

log = structlog.get_logger(__name__)

LOOK_AGAIN_S: Final = 60.0


async def sweep_blobs(blobs: SweptBlobs, claims: BlobClaims, older_than_s: float) -> int:
    """Remove what was not asked for in ``older_than_s`` and nobody needs; return how many.

    What an earlier sweep left set aside is seen to first. Raises QueueUnavailableError and OSError;
    what was set aside then waits for the next sweep, and is found by readers meanwhile.
    """
    removed = 0
    async with aclosing(blobs.aside()) as left:
        async for names in left:
            removed += await settle(blobs, claims, names)
    async with aclosing(blobs.old(older_than_s)) as old:
        async for sha256s in old:
            # Asked here only to leave alone what is in use; what decides is asked by settle().
            free = await claims.unneeded(sha256s)
            names = [name for one in free if (name := await blobs.set_aside(one)) is not None]
            removed += await settle(blobs, claims, names)
    return removed


async def settle(blobs: SweptBlobs, claims: BlobClaims, names: Sequence[AsideName]) -> int:
    """Put back what is needed of what was set aside, remove the rest; return how many went."""
    unneeded = await claims.unneeded([name[:64] for name in names])
    removed = 0
    for name in names:
        if name[:64] in unneeded:
            await blobs.discard(name)
            removed += 1
        else:
            await blobs.restore(name)
    return removed


async def is_our_turn(redis: Redis, keys: Keys) -> bool:
    """Return whether this process is the one that sweeps now: one in the queue, each interval.

    The lease is the interval itself: it is never given back, so the next sweep is one interval on.
    """
    async with unavailable("asking for the sweep"):
        taken = await redis.set(
            keys.sweeper, secrets.token_hex(4), nx=True, px=round(SWEEP_EVERY_S * 1000)
        )
    return bool(taken)


class BlobSweeper:
    """Sweeps while it is entered, whenever it is this process's turn."""

    def __init__(
        self,
        blobs: SweptBlobs,
        claims: BlobClaims,
        redis: Redis,
        keys: Keys,
        older_than_s: float,
        *,
        every_s: float = LOOK_AGAIN_S,
    ) -> None:
        self._blobs = blobs
        self._claims = claims
        self._redis = redis
        self._keys = keys
        self._older_than_s = older_than_s
        self._every_s = every_s
        self._sweeping = Background("sweep", _failed)

    async def __aenter__(self) -> Self:
        self._sweeping.start(self._sweep_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._sweeping.stop()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                if await is_our_turn(self._redis, self._keys):
                    removed = await sweep_blobs(self._blobs, self._claims, self._older_than_s)
                    log.info("blobs.swept", removed=removed)
            except (ForebayError, OSError) as error:  # the next round may do better
                log.warning("blobs.not_swept", reason=str(error))


def _failed(error: BaseException) -> None:
    log.error("blobs.sweep_failed", exc_info=error)
