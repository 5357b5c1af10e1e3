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
from typing import Final

import structlog
from redis.asyncio import Redis

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


async def keep_swept(
    blobs: SweptBlobs, claims: BlobClaims, redis: Redis, keys: Keys, older_than_s: float
) -> None:
    """Sweep for ever, whenever it is this process's turn. Cancel it to end it."""
    while True:
        await asyncio.sleep(LOOK_AGAIN_S)
        try:
            if await is_our_turn(redis, keys):
                removed = await sweep_blobs(blobs, claims, older_than_s)
                log.info("blobs.swept", removed=removed)
        except (ForebayError, OSError) as error:  # the next round may do better
            log.warning("blobs.not_swept", reason=str(error))
