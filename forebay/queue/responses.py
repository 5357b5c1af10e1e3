"""What is kept of a response beside its task: the terms that were asked for, which it repeats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from forebay.core.request import TaskId, Tenant
from forebay.queue.connection import unavailable
from forebay.queue.schema import Keys

PREFIX: Final = "resp_"

UNFINISHED_TTL_S: Final = 86_400
"""A background response that has not started by then never will."""


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """One response. ``terms``: the fields of its object that say what was asked."""

    task_id: TaskId
    tenant: Tenant
    background: bool
    terms: Mapping[str, Any]

    @property
    def response_id(self) -> str:
        """Its id, made of its task's."""
        return f"{PREFIX}{self.task_id}"


class RedisResponses:
    """Records of responses on one Redis; every method raises QueueUnavailableError without it.

    ``result_ttl_s``: how long an answer is kept after its end.
    """

    def __init__(self, redis: Redis, name: str = "main", *, result_ttl_s: float = 3600) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._result_ttl_s = round(result_ttl_s)

    async def keep(self, response: ResponseRecord) -> None:
        """Keep a new record for as long as its task may take; the same one is kept once."""
        told = {
            "tenant": response.tenant,
            "background": response.background,
            "terms": dict(response.terms),
        }
        async with unavailable("keeping a response"):
            await self._redis.set(
                self._keys.response(response.response_id),
                json.dumps(told, ensure_ascii=False),
                ex=UNFINISHED_TTL_S + self._result_ttl_s,
                nx=True,
            )

    async def ended(self, response_id: str) -> None:
        """Forget the record when the answer is forgotten."""
        async with unavailable("keeping a response"):
            await self._redis.expire(self._keys.response(response_id), self._result_ttl_s)

    async def get(self, response_id: str) -> ResponseRecord | None:
        """Return a record, None where there is none (any more)."""
        async with unavailable("looking for a response"):
            text = await self._redis.get(self._keys.response(response_id))
        if text is None:
            return None
        told = json.loads(text)
        task_id = TaskId(response_id.removeprefix(PREFIX))
        return ResponseRecord(task_id, Tenant(told["tenant"]), told["background"], told["terms"])

    async def remove(self, response_id: str) -> None:
        """Forget a record."""
        async with unavailable("removing a response"):
            await self._redis.delete(self._keys.response(response_id))
