"""What those who run a queue of several partitions may see and do: in all of them, or in one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from forebay.core.request import Priority, TaskId, Tenant
from forebay.queue.partitions import partition_in
from forebay.queue.ports import (
    FoundTasks,
    Listing,
    Operator,
    TaskPage,
    TaskQuery,
    TenantLoad,
)


class PartitionedOperator:
    """Operator over several of them. A listing goes from the first partition to the last."""

    def __init__(self, partitions: Sequence[Operator]) -> None:
        self._partitions = tuple(partitions)

    async def list_tasks(
        self,
        listing: Listing,
        *,
        cursor: str = "",
        limit: int = 100,
        priority: Priority | None = None,
        tenant: Tenant | None = None,
    ) -> TaskPage:
        """Return a page of tasks; it may be shorter than ``limit`` where a partition ends."""
        number, after = self._read_cursor(cursor)
        page = await self._partitions[number].list_tasks(
            listing, cursor=after, limit=limit, priority=priority, tenant=tenant
        )
        if page.cursor:
            return TaskPage(page.tasks, f"{number}:{page.cursor}")
        more = number + 1 < len(self._partitions)
        return TaskPage(page.tasks, f"{number + 1}:" if more else "")

    def _read_cursor(self, text: str) -> tuple[int, str]:
        number, _, after = text.partition(":")
        if not text:
            return 0, ""
        if number.isascii() and number.isdigit() and int(number) < len(self._partitions):
            return int(number), after
        raise ValueError(f"not a cursor of a listing: {text[:50]!r}")

    async def find(self, query: TaskQuery) -> FoundTasks:
        """Return a page of tasks of all partitions, as far back as each of them has told."""
        pages = await asyncio.gather(*(one.find(query) for one in self._partitions))
        known_from = max((int(page.after) for page in pages if page.after), default=0)
        tasks = sorted(
            (one for page in pages for one in page.tasks if one[0] >= known_from),
            key=lambda one: -one[0],
        )
        after = str(known_from or "")
        if len(tasks) > query.limit:
            tasks = tasks[: query.limit]
            after = str(tasks[-1][0])
        return FoundTasks(tuple(tasks), after, any(page.partial for page in pages))

    async def tenants(self) -> dict[Tenant, TenantLoad]:
        """Return every tenant that has waiting tasks; each is in one partition."""
        found: dict[Tenant, TenantLoad] = {}
        for some in await asyncio.gather(*(one.tenants() for one in self._partitions)):
            found |= some
        return dict(sorted(found.items()))

    async def retry(self, task_id: TaskId) -> bool:
        """Send a dead letter back."""
        home = self._home(task_id)
        return await home.retry(task_id) if home else False

    async def drop(self, task_id: TaskId) -> bool:
        """Forget a dead letter."""
        home = self._home(task_id)
        return await home.drop(task_id) if home else False

    async def drain(self, on: bool = True) -> None:
        """Give out no more leases in any partition, or do so again."""
        await asyncio.gather(*(one.drain(on) for one in self._partitions))

    def _home(self, task_id: TaskId) -> Operator | None:
        number = partition_in(task_id, len(self._partitions))
        return None if number is None else self._partitions[number]
