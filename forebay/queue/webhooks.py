"""Webhooks that wait in the queue: leased by a dispatcher, settled, and what became of each."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis

from forebay.core.request import TaskId
from forebay.queue.connection import unavailable
from forebay.queue.functions import Functions
from forebay.queue.library_door import Description
from forebay.queue.limits import QueueLimits
from forebay.queue.records import to_record
from forebay.queue.schema import Keys
from forebay.queue.webhook_ports import WebhookAttempt, WebhookClaim, WebhookLease


class WebhookLibrary(Functions):
    """The functions for webhooks."""

    async def claim(
        self, nonce: str, limit: int, per_host: int, lease_ms: int, busy: Mapping[str, int]
    ) -> tuple[int, int, list[tuple[TaskId, dict[str, str]]], int]:
        """Return how many wait, how many are due but not leased, (task, fields) of each leased.

        And how many were ever given up because too many waited.
        """
        pairs = [value for pair in busy.items() for value in pair]
        reply = await self._call("hooks_claim", nonce, limit, per_host, lease_ms, *pairs)
        waiting, due, rows, crowded_out = reply
        leased = [(TaskId(row[0]), _by_name(row[1])) for row in rows]
        return waiting, due, leased, crowded_out

    async def settle(self, task_id: TaskId, nonce: str, wait_ms: int, row: str) -> bool:
        """Return whether the lease was current; negative ``wait_ms``: no attempt follows."""
        return bool(await self._call("hooks_settle", task_id, nonce, wait_ms, row))

    async def log(self, task_id: TaskId) -> list[str]:
        """Return the rows of a task's log."""
        rows = await self._redis.lrange(self._keys.webhook_log(task_id), 0, -1)
        return [str(row) for row in rows]


class RedisWebhooks:
    """``Webhooks`` on one Redis; every method raises QueueUnavailableError without it.

    ``lease_s``: how long a dispatcher has for one attempt before another may take it over.
    """

    def __init__(
        self,
        redis: Redis,
        name: str = "main",
        limits: QueueLimits | None = None,
        *,
        lease_s: float = 45.0,
    ) -> None:
        self._library = WebhookLibrary(redis, Keys(name), limits or QueueLimits())
        self._lease_ms = round(lease_s * 1000)

    async def claim(self, limit: int, per_host: int, busy: Mapping[str, int]) -> WebhookClaim:
        """Lease webhooks that are due; see ``Webhooks``.

        A claim whose reply was lost costs each webhook in it one attempt and one lease's time.
        """
        nonce = secrets.token_hex(8)
        async with unavailable("claiming webhooks"):
            waiting, due, rows, crowded_out = await self._library.claim(
                nonce, limit, per_host, self._lease_ms, busy
            )
        return WebhookClaim([_to_lease(*row) for row in rows], waiting, due, crowded_out)

    async def settle(
        self, lease: WebhookLease, attempt: WebhookAttempt, again_s: float | None
    ) -> bool:
        """Log an attempt, and have another in ``again_s`` or none; see ``Webhooks``."""
        wait_ms = -1 if again_s is None else max(0, round(again_s * 1000))
        row = {"outcome": attempt.outcome, "status": attempt.status, "took_s": attempt.took_s}
        told = {name: value for name, value in {**row, "again_s": again_s}.items() if value}
        text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        async with unavailable("settling a webhook"):
            return await self._library.settle(lease.task.task_id, lease.nonce, wait_ms, text)

    async def webhook_log(self, task_id: TaskId) -> list[WebhookAttempt]:
        """Return the attempts so far, the oldest first; empty where there is no log (any more)."""
        async with unavailable("reading a webhook's log"):
            return [_to_attempt(row) for row in await self._library.log(task_id)]


def _by_name(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _to_lease(task_id: TaskId, fields: dict[str, str]) -> WebhookLease:
    record = to_record(task_id, Description(fields, text=fields["hook_text"]))
    return WebhookLease(
        task=record,
        url=fields["hook"],
        host=urlsplit(fields["hook"]).netloc.lower(),
        attempt=int(fields["hook_tries"]),
        nonce=fields["hook_nonce"],
    )


def _to_attempt(row: str) -> WebhookAttempt:
    at_ms, attempt, text = row.split(" ", 2)
    told: dict[str, Any] = json.loads(text)
    return WebhookAttempt(
        outcome=told["outcome"],
        status=told.get("status"),
        took_s=told.get("took_s", 0.0),
        again_s=told.get("again_s"),
        attempt=int(attempt),
        at_s=int(at_ms) / 1000,
    )
