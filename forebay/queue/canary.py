"""The canaries' share of a queue's tasks: kept in every partition, told by the first one."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from redis.asyncio import Redis

from forebay.queue.connection import unavailable
from forebay.queue.groups import Group, Trial, read_counts, read_entry
from forebay.queue.library_canary import CanaryLibrary, TrialRow
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import CANARY_LOG_TTL_S, KEY_NAMES, MOST_CANARY_LOGGED, Keys

Entry = dict[str, Any]
"""One change of the share: ``id``, ``at`` (s since the epoch), ``share``, ``before``, ``by``,
``reason``, and for a rollback ``figures``."""


class Partition(Protocol):
    """Where a partition is."""

    @property
    def redis(self) -> Redis:
        """A client of its server."""
        ...

    @property
    def name(self) -> str:
        """Its name as a queue."""
        ...

    @property
    def limits(self) -> QueueLimits:
        """Its limits."""
        ...


def new_entry(share: float, before: float, by: str, reason: str, **figures: Any) -> Entry:
    """Return what the log is to say of a change made now."""
    entry: Entry = {
        "id": secrets.token_hex(8),
        "at": round(time.time(), 3),
        "share": share,
        "before": before,
        "by": by,
        "reason": reason,
    }
    return {**entry, "figures": figures} if figures else entry


class RedisCanary:
    """Every method raises QueueUnavailableError where a partition cannot be reached."""

    def __init__(self, places: Sequence[Partition]) -> None:
        self._libraries = [CanaryLibrary(one.redis, Keys(one.name), one.limits) for one in places]
        self._first = places[0].redis
        self._log = Keys(places[0].name).prefix + KEY_NAMES["canary_log"]

    async def begin(self, about: Mapping[str, Any]) -> None:
        """Say that a canary has started, and what it runs; another thing begins a new trial."""
        nonce, text = secrets.token_hex(8), _dumps(about)
        async with unavailable("noting a canary's start"):
            await asyncio.gather(*(one.begin(nonce, text) for one in self._libraries))

    async def set(self, entry: Entry, *, trial: int | None = None) -> bool:
        """Set the share that ``entry`` names, and log it.

        ``trial``: only while this one goes on. False: another has begun, and nothing was set. The
        first partition, which has the log, decides; one that cannot be reached then is given the
        share by ``spread``.
        """
        first, *others = self._libraries
        text, share = _dumps(entry), entry["share"]
        async with unavailable("setting the canaries' share"):
            kept = (MOST_CANARY_LOGGED, CANARY_LOG_TTL_S * 1000)
            if not await first.set(share, trial, text, *kept):
                return False
            await asyncio.gather(*(one.set(share, None, text, 0, 0) for one in others))
        return True

    async def trial(self, window_s: float) -> Trial:
        """Return how canaries stand, with what was counted within ``window_s``."""
        return _together(await self._rows(window_s))

    async def spread(self) -> None:
        """Give every partition the share of the first, where one was away when it was set."""
        first, *others = await self._rows(0)
        wrong = [
            library
            for library, row in zip(self._libraries[1:], others, strict=True)
            if row.share != first.share
        ]
        async with unavailable("setting the canaries' share"):
            sets = (one.set(first.share, None, first.entry, 0, 0) for one in wrong)
            await asyncio.gather(*sets)

    async def log(self, count: int) -> list[Entry]:
        """Return the last changes of the share, the newest first."""
        async with unavailable("reading the canaries' log"):
            found = await self._first.xrevrange(self._log, count=count)
        entries = cast("list[tuple[str, dict[str, str]]]", found or [])
        return [read_entry(fields["entry"]) for _, fields in entries]

    async def _rows(self, window_s: float) -> list[TrialRow]:
        async with unavailable("reading how canaries stand"):
            ms = round(window_s * 1000)
            return await asyncio.gather(*(one.trial(ms) for one in self._libraries))


def _together(rows: Sequence[TrialRow]) -> Trial:
    """Return what all partitions say: each is told of every start, and counts its own tasks."""
    first, sums = rows[0], Counter[str]()
    for row in rows:
        sums.update({name: int(value) for name, value in row.counts.items()})
    counts = {name: str(value) for name, value in sums.items()}
    return Trial(
        share=first.share,
        number=first.number,
        since_s=first.since_ms / 1000 if first.since_ms else None,
        entry=read_entry(first.entry),
        about=read_entry(first.about),
        workers={
            Group.STABLE: max(row.stable for row in rows),
            Group.CANARY: max(row.canaries for row in rows),
        },
        counts={Group.STABLE: read_counts(counts, "s"), Group.CANARY: read_counts(counts, "c")},
        starts=max(int(row.counts.get("c:starts", 0)) for row in rows),
    )


def _dumps(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
