"""Alerts in the queue's server: so that all API processes know the same and one alone tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis

from forebay.ops.alerts.series import Sample
from forebay.ops.alerts.silences import MOST_SILENCES, Silence
from forebay.ops.alerts.states import Alert
from forebay.queue.connection import unavailable
from forebay.queue.functions import Functions
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import KEY_NAMES, Keys, access_name

REPORTS_TTL_S: Final = 120
ALERTS_TTL_S: Final = 7 * 86_400
LOG_TTL_S: Final = 30 * 86_400
SILENCES_TTL_S: Final = 31 * 86_400
MOST_LOGGED: Final = 1_000
SILENT_REPORT_S: Final = 60.0
"""A process that has not reported for so long is gone."""


class AlertLibrary(Functions):
    """The functions of alerts, for one queue."""

    async def lead(self, owner: str, ms: int) -> bool:
        """Judge alerts for so long, or no longer (0); False where another process does."""
        return bool(await self._call("alert_lead", owner, ms))

    async def keep(self, owner: str, alerts: str, changes: Sequence[str]) -> bool:
        """Keep alerts and note changes; False, and nothing is kept, where another judges."""
        told = (alerts, ALERTS_TTL_S * 1000, MOST_LOGGED, LOG_TTL_S * 1000)
        return bool(await self._call("alert_keep", owner, *told, *changes))


class AlertStore:
    """The alerts of one queue. Every method may raise QueueUnavailableError."""

    def __init__(self, redis: Redis, queue_name: str) -> None:
        self._redis = redis
        keys = Keys(access_name(queue_name))
        self._library = AlertLibrary(redis, keys, QueueLimits())
        self._prefix = keys.prefix

    def _key(self, name: str) -> str:
        return self._prefix + KEY_NAMES[name]

    async def lead(self, process: str, seconds: float) -> bool:
        """Return whether ``process`` judges alerts, and alone, for ``seconds`` from now."""
        async with unavailable("taking the lead of alerts"):
            return await self._library.lead(process, round(seconds * 1000))

    async def resign(self, process: str) -> None:
        """Let another process judge at once."""
        async with unavailable("giving up the lead of alerts"):
            await self._library.lead(process, 0)

    async def keep(
        self, process: str, alerts: Mapping[str, Alert], changed: Sequence[Mapping[str, Any]] = ()
    ) -> bool:
        """Keep alerts as they are; False, and nothing is kept, where another process judges."""
        text = _dumps([one.to_json() for one in alerts.values()])
        async with unavailable("keeping alerts"):
            return await self._library.keep(process, text, [_dumps(one) for one in changed])

    async def alerts(self) -> dict[str, Alert]:
        """Return the alerts as they were kept last, by key."""
        async with unavailable("reading alerts"):
            text = await self._redis.get(self._key("alerts"))
        found = [Alert.from_json(one) for one in json.loads(text or "[]")]
        return {one.key: one for one in found}

    async def log(self, count: int) -> list[dict[str, Any]]:
        """Return the last changes, the newest first."""
        async with unavailable("reading the alerts' history"):
            found = await self._redis.xrevrange(self._key("alert_log"), count=count)
        entries = cast("list[tuple[str, dict[str, str]]]", found or [])
        return [json.loads(fields["change"]) for _, fields in entries]

    async def report(self, process: str, at_s: float, samples: Sequence[Sample]) -> None:
        """Say what a process measured, for the one that judges. ``at_s``: its own clock's time."""
        rows = [[one.name, dict(one.labels), one.value] for one in samples]
        async with unavailable("reporting to alerts"):
            key = self._key("alert_reports")
            await self._redis.hset(key, process, _dumps({"at": at_s, "samples": rows}))
            await self._redis.expire(key, REPORTS_TTL_S)

    async def reports(self) -> dict[str, tuple[float, list[Sample]]]:
        """Return what each process said last, with its time."""
        async with unavailable("reading reports"):
            found = await self._redis.hgetall(self._key("alert_reports"))
        return {process: _report(text) for process, text in cast("dict[str, str]", found).items()}

    async def forget_report(self, process: str) -> None:
        """Forget a process that is gone."""
        async with unavailable("forgetting a report"):
            await self._redis.hdel(self._key("alert_reports"), process)

    async def silences(self, now_s: float) -> list[Silence]:
        """Return the silences in force, those that end last first; ended ones are forgotten."""
        key = self._key("silences")
        async with unavailable("reading silences"):
            found = cast("dict[str, str]", await self._redis.hgetall(key))
            every = [Silence(**json.loads(text)) for text in found.values()]
            over = [one.silence_id for one in every if one.until_s <= now_s]
            if over:
                await self._redis.hdel(key, *over)
        return sorted((one for one in every if one.until_s > now_s), key=lambda one: -one.until_s)

    async def silence(self, silence: Silence) -> bool:
        """Keep a silence; False where there are as many as there may be."""
        if len(await self.silences(silence.made_s)) >= MOST_SILENCES:
            return False
        key = self._key("silences")
        async with unavailable("keeping a silence"):
            await self._redis.hset(key, silence.silence_id, _dumps(silence.to_json()))
            await self._redis.expire(key, SILENCES_TTL_S)
        return True

    async def unsilence(self, silence_id: str) -> bool:
        """End a silence; whether there was one."""
        async with unavailable("ending a silence"):
            return bool(await self._redis.hdel(self._key("silences"), silence_id))


def _report(text: str) -> tuple[float, list[Sample]]:
    raw = json.loads(text)
    rows = raw["samples"]
    samples = [Sample(name, tuple(sorted(labels.items())), value) for name, labels, value in rows]
    return raw["at"], samples


def _dumps(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
