"""Ends an API process that lives and answers nobody."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import httpx
import structlog

from forebay.core.stillness import Stillness

log = structlog.get_logger("forebay.supervisor")

ASK_EVERY_S: Final = 5.0
ANSWER_S: Final = 5.0

DEAF_S: Final = 60.0
"""Far beyond what any load has cost an answer to ``/healthz``: a restart ends streams."""


class Door(Protocol):
    """The process that is watched."""

    @property
    def pid(self) -> int | None:
        """Process id of the present life."""
        ...

    async def abort(self, reason: str) -> None:
        """End this life; another follows."""
        ...


async def end_when_deaf(door: Door, url: str, *, deaf_s: float = DEAF_S) -> None:
    """Watch an API process for ever, and end every life of it that answers nobody for ``deaf_s``.

    An answer is whatever comes back, be it a refusal: only a process that hangs says nothing.
    """
    silence, answers = Stillness(ASK_EVERY_S + ANSWER_S), 0
    clock = asyncio.get_running_loop().time
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_S, trust_env=False) as client:
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            answers += await _answers(client)
            pid = door.pid
            silent_s = silence.see(None if pid is None else (pid, answers), clock())
            if silent_s > deaf_s:
                log.error("door_silent", pid=pid, after_s=round(silent_s, 1))
                await door.abort("silent")


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        await client.get("/healthz", headers={"Connection": "close"})
    except httpx.TimeoutException:
        return False
    except httpx.HTTPError:
        return True  # it has closed the connection, so it runs
    return True
