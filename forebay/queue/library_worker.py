"""What a worker calls of the library: each function with its types."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from forebay.core.request import TaskId
from forebay.queue.functions import Functions, flat
from forebay.queue.groups import Group
from forebay.queue.ports import Fence


class LeaseRow(NamedTuple):
    """One lease of a claim; ``left_ms`` to the deadline, negative: there is none.

    ``age_ms``: since the task arrived. ``waited_ms``: since then, or since it last came back.
    """

    task_id: TaskId
    fence: Fence
    deliveries: int
    cost: int
    priority: int
    left_ms: int
    age_ms: int
    waited_ms: int
    request: str


class Company(IntEnum):
    """What a worker may take beside what it holds: a suspect runs alone."""

    ANY = 0
    RUN_EMPTY = 1
    """Nothing: a suspect waits for a worker that holds nothing."""
    NONE = 2
    """Nothing: it holds a suspect."""


class Claimed(NamedTuple):
    """What ``claim`` answers; ``due_ms``: until a delayed task is due, negative: none is."""

    rows: list[LeaseRow]
    due_ms: int
    company: Company


class WorkerLibrary(Functions):
    """The worker's functions. Lists of leases are (task, fence)."""

    async def claim(
        self,
        worker: str,
        limit: int,
        free_tokens: int,
        nonce: str,
        elsewhere: int,
        group: Group = Group.STABLE,
    ) -> Claimed:
        """Return new leases, for the same nonce the same ones.

        ``elsewhere``: how many tasks of other queues the worker holds.
        """
        share = self._limits.starvation_share
        due_ms, company, *told = await self._call(
            "claim", worker, limit, free_tokens, nonce, share, elsewhere, group.value
        )
        rows = [_lease(*pair) for pair in zip(told[::2], told[1::2], strict=True)]
        return Claimed(rows, due_ms, Company(company))

    async def heartbeat(
        self,
        worker: str,
        leases: Sequence[tuple[TaskId, Fence]],
        *,
        serving: bool,
        group: Group = Group.STABLE,
    ) -> tuple[list[TaskId], list[TaskId]]:
        """Return the ids that are lost, and those that are cancelled."""
        lost, cancelled = await self._call(
            "heartbeat", worker, int(serving), group.value, *flat(leases)
        )
        return lost, cancelled

    async def finish(
        self, outcomes: Sequence[tuple[TaskId, Fence, str, str, str, str, str, str]]
    ) -> list[TaskId]:
        """Store (task, fence, text, reason, usage, code, message, more); return the stored ids."""
        return list(await self._call("finish", *flat(outcomes)))

    async def release(self, leases: Sequence[tuple[TaskId, Fence]]) -> list[TaskId]:
        """Return the ids given back."""
        return list(await self._call("release", *flat(leases)))

    async def redeliver(self, leases: Sequence[tuple[TaskId, Fence]], why: str) -> list[TaskId]:
        """Return the ids given back, the delivery counted."""
        return list(await self._call("redeliver", why, *flat(leases)))

    async def reap(self, worker: str) -> list[TaskId]:
        """Return the ids taken from a dead worker."""
        return list(await self._call("reap", worker))

    async def append(
        self, nonce: str, writes: Sequence[tuple[TaskId, Fence, str, int, str, str]]
    ) -> list[TaskId]:
        """Write (task, fence, text, tokens, more, phases); return the ids whose fence was stale."""
        return list(await self._call("append", nonce, *flat(writes)))


def _lease(numbers: str, request: str) -> LeaseRow:
    task_id, *others = numbers.split(" ")
    fence, deliveries, cost, priority, left_ms, age_ms, waited_ms = map(int, others)
    return LeaseRow(
        TaskId(task_id),
        Fence(fence),
        deliveries,
        cost,
        priority,
        left_ms,
        age_ms,
        waited_ms,
        request,
    )
