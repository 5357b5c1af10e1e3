"""Whether the model answers: one token about one picture, by the way of every request."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
import zlib
from functools import cache
from typing import Final

from forebay.access.caller import MOST_URGENT, Caller
from forebay.api.answers import final_record
from forebay.api.intake import Ask, Turn, submit
from forebay.api.pictures import RawPicture
from forebay.api.probed import SILENT, Probed
from forebay.api.reuse import CacheWishes
from forebay.api.services import Services
from forebay.core.errors import ForebayError, NotReadyError, QueueUnavailableError
from forebay.core.request import Role, SamplingParams, TaskId, Tenant

_CALLER: Final = Caller("health", tenant=Tenant("forebay-health"))
_SIDE: Final = 112


async def probe(services: Services) -> Probed:
    """Ask the model before everyone who waits; return within ``health_timeout_s``."""
    began_s = time.monotonic()
    reason = await _trouble(services)
    now_s = time.monotonic()
    return Probed(services.profile.name, reason, now_s - began_s, now_s)


async def serving_workers(services: Services) -> int:
    """Return how many workers serve. Raises NotReadyError for none, QueueUnavailableError."""
    workers = await services.queue.workers()
    if workers < 1:
        raise NotReadyError("no worker with a loaded model has been heard of lately", retry_after=2)
    return workers


async def _trouble(services: Services) -> str | None:
    try:
        async with asyncio.timeout(services.settings.health_timeout_s):
            await serving_workers(services)  # without one nothing need be asked, or waited for
            await _ask(services)
    except TimeoutError:
        return SILENT
    except ForebayError as error:
        return error.code
    return None


async def _ask(services: Services) -> None:
    """Return when the model has answered. Raises its task's error, or why it was not taken."""
    ask = Ask(
        (Turn(Role.USER, (RawPicture(picture()), "?")),),
        SamplingParams(max_tokens=1),
        priority=MOST_URGENT,
        deadline_s=services.settings.health_timeout_s,  # none that nobody waits for is begun
        cache=CacheWishes(read=False, keep=False),
    )
    task_id = (await submit(services, ask, _CALLER)).task_id
    try:
        await final_record(services, task_id)
    except asyncio.CancelledError:
        await _cancel(services, task_id)
        raise


async def _cancel(services: Services, task_id: TaskId) -> None:
    with contextlib.suppress(QueueUnavailableError):  # its deadline ends it
        await services.queue.cancel(task_id)


@cache
def picture() -> bytes:
    """Return a PNG of 112 x 112 pixels, grey that grows lighter: made without a codec."""
    rows = b"".join(b"\0" + bytes(at * 2 for at in range(_SIDE)) for _ in range(_SIDE))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
