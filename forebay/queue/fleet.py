"""Workers and supervisors as they say they are, and what is wanted of them, in the queue's server.

What is wanted travels as data: a member finds it in the answer to its next report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from forebay.queue.connection import unavailable
from forebay.queue.functions import Functions
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import Keys, access_name

FORGOTTEN_S: Final = 600.0
"""A member that has been silent for so long is not listed any more."""

ORDERS_TTL_S: Final = 7 * 86_400
MOST_MEMBERS: Final = 1_000

FORM: Final = 1
"""Rises with every change of what members say. Those of a release that says it otherwise are left
out: for the length of an upgrade half a list is better than none."""

DRAIN: Final = "drain"
"""Take nothing more, end or give back what is held; for as long as it is wanted."""

RESTART: Final = "restart"
"""Drain, then begin anew. ``restart LIFE``: of that life alone, so that it happens once."""

RUN: Final = "run"
"""``run COUNT``: of a supervisor, how many workers it runs."""


@dataclass(frozen=True, slots=True)
class Member:
    """One worker or supervisor. ``says``: what it said last, ``silent_s`` ago.

    ``seen_s``: when that was, by the queue's clock; ``wanted``: what is wanted of it, or nothing.
    """

    name: str
    says: Mapping[str, Any]
    seen_s: float
    silent_s: float
    wanted: str = ""


class FleetLibrary(Functions):
    """The functions of the fleet, for one queue."""

    async def report(self, name: str, says: str) -> str:
        """Keep what a member says; return what is wanted of it."""
        keep_ms = round(FORGOTTEN_S * 1000)
        return str(await self._call("fleet_report", name, says, keep_ms, MOST_MEMBERS))

    async def order(self, wanted: str, names: Sequence[str]) -> None:
        """Say what is wanted of some members; empty: nothing more."""
        await self._call("fleet_order", wanted, ORDERS_TTL_S * 1000, *names)

    async def leave(self, name: str) -> None:
        """Take a member that has ended off the list."""
        await self._call("fleet_leave", name)

    async def fleet(self) -> tuple[int, list[tuple[str, str, str]]]:
        """Return the time in ms, and name, last words with their time, and order of each."""
        now_ms, rows = await self._call("fleet", round(FORGOTTEN_S * 1000))
        return int(now_ms), [(str(name), str(said), str(order)) for name, said, order in rows]


class Fleet:
    """The fleet of one queue. Every method may raise QueueUnavailableError."""

    def __init__(self, redis: Redis, queue_name: str) -> None:
        self._library = FleetLibrary(redis, Keys(access_name(queue_name)), QueueLimits())

    async def report(self, name: str, says: Mapping[str, Any]) -> str:
        """Say how a member is; return what is wanted of it, empty for nothing."""
        told = {"form": FORM, **says}
        text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        async with unavailable("reporting to the fleet"):
            return await self._library.report(name, text)

    async def order(self, wanted: str, *names: str) -> None:
        """Say what is wanted of members; empty: nothing more."""
        if names:
            async with unavailable("leaving word for workers"):
                await self._library.order(wanted, names)

    async def leave(self, name: str) -> None:
        """Take a member that has ended off the list: it is not missed."""
        async with unavailable("leaving the fleet"):
            await self._library.leave(name)

    async def members(self) -> list[Member]:
        """Return every member of this release's form that was heard of lately, by name."""
        async with unavailable("looking at the fleet"):
            now_ms, rows = await self._library.fleet()
        members = [_member(now_ms, *row) for row in rows]
        known = [one for one in members if one.says.get("form") == FORM]
        return sorted(known, key=lambda one: one.name)


def _member(now_ms: int, name: str, said: str, wanted: str) -> Member:
    at_ms, _, text = said.partition(" ")
    silent_ms = max(0, now_ms - int(at_ms))
    return Member(name, json.loads(text), int(at_ms) / 1000, silent_ms / 1000, wanted)
