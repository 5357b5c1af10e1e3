"""What the door calls of the library: each function with its types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from forebay.core.request import TaskId, Tenant
from forebay.queue.functions import Functions, by_name
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Idempotency, NewTask, Quota
from forebay.queue.schema import Keys

MOST_QUOTAS_KNOWN: Final = 1000
"""Tenants' own quotas whose form is kept: few differ."""


class Verdict(NamedTuple):
    """What ``enqueue`` answers.

    ``kind`` is "ok", or of a refusal "full", "quota", "open", "rate", "conflict" or "unheld".
    ``where``: the id of the task that there is (ok, conflict), else what there is too much of,
    "tasks" or "tokens", or a picture (unheld); ``there``: how much. ``position`` and ``eta_ms``
    are -1 where they are not known or do not apply.
    """

    kind: str
    where: str
    there: int = 0
    retry_ms: int = 0
    position: int = -1
    eta_ms: int = -1
    fresh: bool = True
    reuse: str = ""


class DepthRow(NamedTuple):
    """What ``depth`` answers; times in ms, -1 where nothing was measured."""

    waiting: int
    leased: int
    dead: int
    tokens: int
    oldest_ms: int
    delayed: int
    drained: int
    wait_ms: int
    eta_error_ms: int
    tokens_per_1000_s: int
    ended: int


class Description(NamedTuple):
    """What ``describe`` answers; position and time are -1 unless the task waits."""

    fields: dict[str, str]
    position: int = -1
    eta_ms: int = -1
    text: str = ""


class GlanceRow(NamedTuple):
    """What ``glance`` answers of one task; position and time are -1 unless it waits."""

    task_id: TaskId
    state: str
    position: int
    eta_ms: int


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class DoorLibrary(Functions):
    """The door's functions."""

    def __init__(self, redis: Redis, keys: Keys, limits: QueueLimits) -> None:
        super().__init__(redis, keys, limits)
        self._caps = lru_cache(MOST_QUOTAS_KNOWN)(self._bounds)

    async def enqueue(self, task: NewTask, request: str) -> Verdict:
        """Take a task, or say why not. Raises OutOfMemoryError where it is not there yet."""
        known = self._known(task)
        try:
            reply = await self._call("enqueue", task.task_id, request, known)
        except OutOfMemoryError:
            # What is refused now may be a second try, and the first one's reply was lost.
            reply = await self._call("admitted", task.task_id, "", known)
            if not reply:
                raise
        return _to_verdict(reply)

    async def replay(self, tenant: Tenant, idempotency: Idempotency) -> Verdict | None:
        """Say what ``enqueue`` would of the task that this key names; None: there is none."""
        key = key_digest(idempotency.key)
        reply = await self._call("replay", tenant, key, idempotency.digest)
        return _to_verdict(reply) if reply else None

    def _known(self, task: NewTask) -> str:
        """Return what the function is told by name; what was not asked for is not told at all."""
        form = {
            "tenant": task.tenant,
            "priority": int(task.priority),
            "model": task.request.model,
            "cost": task.cost.total,
            **_wishes(task),
        }
        return f"{self._caps(task.quota)},{_to_json(form)[1:]}"

    def _bounds(self, quota: Quota) -> str:
        """Return the bounds on a tenant's tasks as the beginning of that form."""
        limits = self._limits
        bounds = {
            "max_tasks": limits.max_waiting,
            "max_tokens": limits.max_waiting_tokens,
            "retry_ms": round(limits.retry_after_s * 1000),
            "tenant_tasks": _first(quota.max_waiting, limits.tenant_max_waiting),
            "tenant_tokens": _first(quota.max_waiting_tokens, limits.tenant_max_waiting_tokens),
            "holder": None if quota.max_unfinished is None else quota.holder,
            "max_open": quota.max_unfinished,
            "rate": _first(quota.rate_per_s, limits.tenant_rate_per_s),
            "burst": limits.tenant_burst if quota.rate_per_s is None else quota.burst,
        }
        return _to_json(_told(bounds)).removesuffix("}")

    async def describe(self, task_id: TaskId) -> Description | None:
        """Return what is known of a task, or None."""
        reply = await self._call("describe", task_id)
        if not reply:
            return None
        flat, position, eta_ms, text = reply
        return Description(by_name(flat), position, eta_ms, text)

    async def glance(self, task_ids: Sequence[TaskId]) -> list[GlanceRow]:
        """Return where each of those tasks stands that are there."""
        return [GlanceRow(*row) for row in await self._call("glance", *task_ids)]

    async def cancel(self, task_id: TaskId) -> bool:
        """Return whether the task was waiting (it has ended) or held (it is flagged)."""
        return bool(await self._call("cancel", task_id))

    async def depth(self) -> DepthRow:
        """Return the queue's size."""
        return DepthRow(*await self._call("depth"))

    async def workers(self) -> int:
        """Return how many workers were heard of within one lease."""
        return int(await self._call("workers"))


def _to_verdict(reply: list[Any]) -> Verdict:
    if reply[0] != "ok":
        kind, where, there, retry_ms = reply
        return Verdict(kind, where, there, retry_ms)
    _, where, position, eta_ms, fresh, reuse = reply
    return Verdict("ok", where, 0, 0, position, eta_ms, bool(fresh), reuse)


def key_digest(idempotency_key: str) -> str:
    """Return a short name for a client's key, which may be long."""
    return hashlib.blake2b(idempotency_key.encode(), digest_size=16).hexdigest()


def _wishes(task: NewTask) -> dict[str, Any]:
    """Return what only some tasks ask for. Looked at one by one: most ask for none of it."""
    wishes: dict[str, Any] = {}
    if task.deadline_s is not None:
        wishes["deadline_ms"] = _milliseconds(task.deadline_s)
    if task.delay_s:
        wishes["delay_ms"] = _milliseconds(task.delay_s)
    if task.weight != 1:
        wishes["weight"] = task.weight
    if (idem := task.idempotency) is not None:
        wishes |= {"key": key_digest(idem.key), "digest": idem.digest}
    if (same := task.same) is not None:
        wishes |= _told({"same": same.digest, "read": same.read, "keep": same.keep})
    if images := task.request.images:
        wishes["pictures"] = " ".join(sorted({one.sha256 for one in images}))
    if task.held:
        wishes["held"] = True
    if task.webhook_url is not None:
        wishes["hook"] = task.webhook_url
    if task.metadata:
        wishes["metadata"] = json.dumps(dict(task.metadata))
    return wishes


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _told(form: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in form.items() if value is not None and value is not False}


def _first(own: float | None, common: float | None) -> float | None:
    return common if own is None else own
