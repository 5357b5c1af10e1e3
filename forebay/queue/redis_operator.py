"""What those who run the queue may see and do: an ``Operator`` on Valkey or Redis."""

from __future__ import annotations

import json
import re

from redis.asyncio import Redis

from forebay.core.request import Priority, TaskId, Tenant
from forebay.queue.connection import unavailable
from forebay.queue.library import Library
from forebay.queue.library_door import Description
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import FoundTasks, Listing, TaskPage, TaskQuery, TenantLoad
from forebay.queue.records import to_record
from forebay.queue.schema import Keys


class RedisOperator:
    """Operator on one Redis; see the protocol for what each method does."""

    def __init__(self, redis: Redis, name: str = "main", limits: QueueLimits | None = None) -> None:
        self._library = Library(redis, Keys(name), limits or QueueLimits())

    async def list_tasks(
        self,
        listing: Listing,
        *,
        cursor: str = "",
        limit: int = 100,
        priority: Priority | None = None,
        tenant: Tenant | None = None,
    ) -> TaskPage:
        """Return a page of tasks."""
        after = _read_cursor(cursor)
        async with unavailable("listing tasks"):
            after, rows = await self._library.list_tasks(
                listing.value, limit, priority, tenant or "", after
            )
        # A task deleted by hand has no fields; it is no task any more.
        tasks = [to_record(task_id, Description(fields)) for task_id, fields in rows if fields]
        return TaskPage(tuple(tasks), json.dumps(after) if after else "")

    async def find(self, query: TaskQuery) -> FoundTasks:
        """Return a page of tasks across tenants."""
        async with unavailable("looking for tasks"):
            after, partial, rows = await self._library.find(query)
        tasks = ((seq, to_record(task_id, Description(fields))) for task_id, seq, fields in rows)
        return FoundTasks(tuple(tasks), after, partial)

    async def tenants(self) -> dict[Tenant, TenantLoad]:
        """Return every tenant that has waiting tasks."""
        async with unavailable("listing tenants"):
            found = await self._library.tenants()
        names = (name.removeprefix("n:") for name in found if name.startswith("n:"))
        return {
            Tenant(name): TenantLoad(found[f"n:{name}"], found.get(f"c:{name}", 0))
            for name in sorted(names)
        }

    async def retry(self, task_id: TaskId) -> bool:
        """Send a dead letter back."""
        async with unavailable("retrying a dead letter"):
            return await self._library.retry(task_id)

    async def drop(self, task_id: TaskId) -> bool:
        """Forget a dead letter."""
        async with unavailable("dropping a dead letter"):
            return await self._library.drop(task_id)

    async def drain(self, on: bool = True) -> None:
        """Give out no more leases, or do so again."""
        async with unavailable("draining the queue"):
            await self._library.drain(on)


def _read_cursor(text: str) -> list[str]:
    try:
        parts = json.loads(text) if text else []
    except ValueError:
        parts = None
    if isinstance(parts, list) and all(isinstance(part, str) for part in parts) and _leads(parts):
        return parts
    raise ValueError(f"not a cursor of a listing: {text[:50]!r}")


def _leads(parts: list[str]) -> bool:
    """Whether they are what a page ends with: nothing, or score, task, and of a line its place."""
    if len(parts) not in (0, 2, 4):
        return False
    scored = not parts or re.fullmatch(r"\d{1,20}(\.\d{1,20})?(e\+\d\d)?", parts[0]) is not None
    return scored and (len(parts) < 4 or re.fullmatch(r"\d", parts[2]) is not None)
