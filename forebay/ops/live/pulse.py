"""Once a second: say what this process has counted, and have the point that all have.

Of all API processes one leads: it makes a point of what all say, and keeps it in the queue's
server, where the others find it. So each process shows the same, whenever it was started.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.ops.alerts.rules import Severity
from forebay.ops.live.columns import KEYS, Values
from forebay.ops.live.fleet_view import workers_of
from forebay.ops.live.gathering import Gathering
from forebay.ops.live.light import AWAY, Excess, Progress, Seen, judge
from forebay.ops.live.packing import pack, unpack
from forebay.ops.live.ring import Rings, time_of
from forebay.queue.fleet import Fleet
from forebay.queue.live import Beat, LiveStore
from forebay.queue.ports import Submitter

log = structlog.get_logger("forebay.live")

EVERY_S: Final = 1.0
_SHARED_GPU_KEY: Final = "gpu_memory_bytes"

Firing = Sequence[tuple[str, Severity | None, float]]
"""Rule, severity and value of alerts that fire."""


@dataclass(frozen=True, slots=True)
class Now:
    """The newest point: when, in seconds since the epoch; the light as JSON; the figures."""

    at_s: float
    light: Mapping[str, Any]
    values: Values

    def to_json(self) -> dict[str, Any]:
        """Return what clients read."""
        return {"at": self.at_s, "light": self.light, "values": self.values}


@dataclass(frozen=True, slots=True)
class Sources:
    """What a pulse looks at. ``counted``: this process's report; ``firing``: of all alerts."""

    counted: Callable[[], Awaitable[dict[str, Any]]]
    firing: Callable[[], Awaitable[Firing]]
    queue: Submitter
    fleet: Fleet


@dataclass(frozen=True, slots=True)
class PulseTerms:
    """``process``: a name that no other has. ``limits``: by key, where the light turns yellow.

    ``gpu_memory_limit``: the share of a GPU's memory that is the limit of its bytes.
    """

    process: str
    limits: Mapping[str, float]
    gpu_memory_limit: float
    stall_s: float
    every_s: float = EVERY_S


class LivePulse:
    """An async context manager; while it is entered, ``now`` and ``rings`` are up to date."""

    def __init__(self, store: LiveStore, sources: Sources, terms: PulseTerms) -> None:
        self.rings = Rings()
        self.now: Now | None = None
        self.beaten = asyncio.Condition()
        self._store = store
        self._sources = sources
        self._terms = terms
        self._leads = False
        self._whole = False  # whether the rings have what was there before this process
        self._gathering = Gathering(time.monotonic())
        self._progress = Progress(terms.every_s)
        self._excess = Excess()
        self._beating = Background("live", _failed)

    async def __aenter__(self) -> Self:
        self._beating.start(self._beat_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._beating.stop()

    def thresholds(self) -> dict[str, float]:
        """Return the limit of each figure that has one; of GPU memory, as the GPU has it."""
        limits = dict(self._terms.limits)
        values = self.now.values if self.now else {}
        used, share = values.get("gpu_memory_bytes"), values.get("gpu_memory_share")
        if used and share:
            limits[_SHARED_GPU_KEY] = round(self._terms.gpu_memory_limit * used / share)
        return limits

    async def _beat_for_ever(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            await self.beat()
            due = max(due + self._terms.every_s, clock())
            await asyncio.sleep(due - clock())

    async def beat(self) -> None:
        """Report, and take or make the newest point."""
        says = json.dumps(await self._sources.counted(), separators=(",", ":"))
        try:
            await self._catch_up()
            beat = await self._exchange(says)
            if beat.leads:
                await self._make(beat)
        except QueueUnavailableError as error:
            log.debug("live_alone", reason=error.message)
            self.now = Now(time.time(), AWAY.to_json(), dict.fromkeys(KEYS))
        async with self.beaten:
            self.beaten.notify_all()

    async def _catch_up(self) -> None:
        """Read what was there before this process, once."""
        if not self._whole:
            async for points in self._store.coarse():
                self.rings.coarse.add(points)
            async for points in self._store.fine():
                self.rings.fine.add(points)
            self._whole = True

    async def _exchange(self, says: str) -> Beat:
        rings, process = self.rings, self._terms.process
        beat = await self._store.beat(process, says, rings.fine.place, rings.coarse.place)
        rings.fine.add(beat.fine)
        rings.coarse.add(beat.coarse)
        if beat.leads and not self._leads:
            log.info("live_lead_taken", owner=process)
            self._gathering = Gathering(time.monotonic())
            self._progress = Progress(self._terms.every_s)
            self._excess = Excess()
        self._leads = beat.leads
        if beat.fine and beat.light:
            self._show(*beat.fine[-1], json.loads(beat.light))
        return beat

    async def _make(self, beat: Beat) -> None:
        sources, now_s = self._sources, time.monotonic()
        depth, serving = await sources.queue.depth(), await sources.queue.workers()
        members = await sources.fleet.members()
        reports = {name: json.loads(text) for name, text in beat.reports.items()}
        values = self._gathering.point(now_s, reports, members, depth, serving)
        workers = workers_of(members, self._terms.stall_s)
        stuck_s = self._progress.see(depth, members, now_s)
        seen = Seen(values, depth, workers, await sources.firing(), stuck_s)
        exceeded = self._excess.lasting(values, self.thresholds(), now_s)
        light = judge(seen, exceeded).to_json()
        point = pack(values)
        mean = self.rings.due_mean(self._newest_s)
        coarse = "" if mean is None else pack(dict(zip(KEYS, mean, strict=True)))
        kept = await self._store.keep(self._terms.process, json.dumps(light), point, coarse)
        if kept is None:
            return  # another leads by now
        self.rings.fine.add([(kept[0], point)])
        if kept[1]:
            self.rings.coarse.add([(kept[1], coarse)])
        self._show(kept[0], point, light)

    @property
    def _newest_s(self) -> float:
        return self.rings.fine.newest_s or 0.0

    def _show(self, place: str, point: str, light: Mapping[str, Any]) -> None:
        figures = unpack(point)
        if figures is not None:
            self.now = Now(time_of(place), light, dict(zip(KEYS, figures, strict=True)))


def _failed(error: BaseException) -> None:
    log.error("live_failed", exc_info=error)
