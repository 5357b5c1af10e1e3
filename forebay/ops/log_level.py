"""The level of the log at run time: wanted through the queue's server, for a while, by everyone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self

import structlog
from redis.asyncio import Redis

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.queue.connection import unavailable
from forebay.queue.schema import KEY_NAMES, Keys, access_name

log = structlog.get_logger("forebay.log")

Level = Literal["debug", "info", "warning", "error"]

LONGEST_S: Final = 86_400.0
LOOK_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class WantedLevel:
    """A level, until when (s since the epoch) and by whom it is wanted."""

    level: Level
    until_s: float
    by: str


class LogLevels:
    """The wanted level of one queue's processes. Every method may raise QueueUnavailableError."""

    def __init__(self, redis: Redis, queue_name: str) -> None:
        self._redis = redis
        self._key = Keys(access_name(queue_name)).prefix + KEY_NAMES["log_level"]

    async def want(self, level: Level, for_s: float, by: str) -> WantedLevel:
        """Have every process log from this level on, for so long."""
        wanted = WantedLevel(level, time.time() + for_s, by)
        async with unavailable("setting the log's level"):
            await self._redis.set(self._key, json.dumps(asdict(wanted)), px=round(for_s * 1000))
        return wanted

    async def end(self) -> None:
        """Have every process log as its settings say."""
        async with unavailable("setting the log's level"):
            await self._redis.delete(self._key)

    async def wanted(self) -> tuple[WantedLevel, float] | None:
        """Return what is wanted, and for how many seconds yet by the server's clock."""
        async with unavailable("reading the log's level"):
            text, left_ms = await asyncio.gather(
                self._redis.get(self._key), self._redis.pttl(self._key)
            )
        if text is None or left_ms <= 0:
            return None
        return WantedLevel(**json.loads(text)), left_ms / 1000


class LevelFollower:
    """Keeps this process at the wanted level while it is entered.

    ``own``: the level of the settings, to which it falls back, also where the server is away when
    the time is over. ``apply`` sets the process's level.
    """

    def __init__(
        self,
        levels: LogLevels,
        own: Level,
        apply: Callable[[str], None],
        *,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._levels = levels
        self._own = own
        self._apply = apply
        self._every_s = every_s
        self._present: str = own
        self._over_s = 0.0
        self._following = Background("log-level", _failed)

    async def __aenter__(self) -> Self:
        self._following.start(self._follow())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._following.stop()

    async def _follow(self) -> None:
        while True:
            self._set(await self._wanted_now())
            await asyncio.sleep(self._every_s)

    async def _wanted_now(self) -> str:
        clock = asyncio.get_running_loop().time
        try:
            found = await self._levels.wanted()
        except QueueUnavailableError:
            return self._present if clock() < self._over_s else self._own
        if found is None:
            return self._own
        self._over_s = clock() + found[1]
        return found[0].level

    def _set(self, level: str) -> None:
        if level != self._present:
            self._present = level
            self._apply(level)
            log.warning("log_level", reason=level)


def _failed(error: BaseException) -> None:
    log.error("log_level_not_followed", exc_info=error)
