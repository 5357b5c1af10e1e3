"""What operators call of the library: each function with its types."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.core.request import TaskId
from forebay.queue.functions import Functions, by_name
from forebay.queue.ports import TaskQuery

Fields = dict[str, str]


class OperatorLibrary(Functions):
    """The operator's functions."""

    async def list_tasks(
        self, index: str, limit: int, level: int | None, tenant: str, cursor: Sequence[str]
    ) -> tuple[list[str], list[tuple[TaskId, dict[str, str]]]]:
        """Return the cursor after this page (empty at the end), and each task with its fields."""
        at_level = "" if level is None else int(level)  # no Priority: it is packed as it is
        after, rows = await self._call("list", index, limit, at_level, tenant, *cursor)
        return [str(part) for part in after], [(task_id, by_name(flat)) for task_id, flat in rows]

    async def find(self, query: TaskQuery) -> tuple[str, bool, list[tuple[TaskId, int, Fields]]]:
        """Return where the next page goes on, whether some may be missing, id, place and fields."""
        after, partial, rows = await self._call(
            "find", query.limit, query.tenant, query.prefix, query.before, *query.groups
        )
        found = [(task_id, int(seq), by_name(flat)) for task_id, seq, flat in rows]
        return str(after), bool(partial), found

    async def tenants(self) -> dict[str, int]:
        """Return ``n:<tenant>``, its waiting tasks, and ``c:<tenant>``, their cost, of each."""
        found: dict[str, str] = {}
        cursor = "0"
        while True:
            cursor, some = await self._call("tenants", cursor)
            found |= by_name(some)
            if cursor == "0":
                return {name: int(value) for name, value in found.items()}

    async def retry(self, task_id: TaskId) -> bool:
        """Return whether there was such a dead letter; it waits again."""
        return bool(await self._call("retry", task_id))

    async def drop(self, task_id: TaskId) -> bool:
        """Return whether there was such a dead letter; it is gone."""
        return bool(await self._call("drop", task_id))

    async def drain(self, on: bool) -> None:
        """Give out no more leases, or do so again."""
        await self._call("drain", int(on))
