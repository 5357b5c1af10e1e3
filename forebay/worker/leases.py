"""The leases that a worker holds: what it counts by, and what it drops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from forebay.core.request import TaskId
from forebay.queue.ports import Fence, Lease

LeaseKey = tuple[TaskId, Fence]
"""One delivery of one task."""


def key_of(lease: Lease) -> LeaseKey:
    """Return what names this delivery in the queue."""
    return lease.task_id, lease.fence


def run_id(key: LeaseKey) -> TaskId:
    """Return what names this delivery in the engine.

    Not the task's id alone: events of a lost delivery may still be on their way when this worker
    gets the same task again.
    """
    return TaskId(f"{key[0]}~{key[1]}")


class HeldLeases:
    """Every lease from its claim to its end. Used on the event loop only.

    ``max_leases`` and ``max_tokens`` bound what is held; one lease always fits when none is.
    """

    def __init__(self, max_leases: int, max_tokens: int) -> None:
        self._max_leases = max_leases
        self._max_tokens = max_tokens
        self._held: dict[TaskId, Lease] = {}
        self._keys: dict[TaskId, LeaseKey] = {}
        self._in_engine: set[LeaseKey] = set()
        self._dropped = asyncio.Event()
        self.drops = 0  # so far; a wait can begin where a count was taken

    def __len__(self) -> int:
        return len(self._held)

    @property
    def room(self) -> int:
        """How many more leases may be claimed."""
        return self._max_leases - len(self._held) if self.free_tokens > 0 else 0

    @property
    def free_tokens(self) -> int:
        """Tokens of cost that may still be claimed."""
        return self._max_tokens - sum(lease.cost_total for lease in self._held.values())

    def take(self, lease: Lease) -> None:
        """Hold a claimed lease. An older delivery of the same task must have been dropped."""
        key = key_of(lease)
        self._held[lease.task_id] = lease
        self._keys[run_id(key)] = key

    def enter_engine(self, key: LeaseKey) -> bool:
        """Note that the engine gets the task; False when the lease has been dropped meanwhile."""
        held = self.holds(key)
        if held:
            self._in_engine.add(key)
        return held

    def holds(self, key: LeaseKey) -> bool:
        """Whether this very delivery is held."""
        lease = self._held.get(key[0])
        return lease is not None and lease.fence == key[1]

    def trace_id(self, key: LeaseKey) -> str | None:
        """Return the trace that a held delivery's request belongs to."""
        lease = self._held.get(key[0])
        trace = None if lease is None else lease.terms.trace
        return None if trace is None else trace.trace_id

    def drop(self, key: LeaseKey) -> bool:
        """Forget a delivery; True when the engine has been given it."""
        if self.holds(key):
            del self._held[key[0]]
        self._keys.pop(run_id(key), None)
        self.drops += 1
        self._dropped.set()
        in_engine = key in self._in_engine
        self._in_engine.discard(key)
        return in_engine

    def of_run(self, run: TaskId) -> LeaseKey | None:
        """Return the held delivery that the engine knows as ``run``."""
        key = self._keys.get(run)
        return key if key is not None and self.holds(key) else None

    def keys(self) -> list[LeaseKey]:
        """Return every held delivery."""
        return [key_of(lease) for lease in self._held.values()]

    def task_ids(self) -> list[TaskId]:
        """Return the tasks of every held delivery."""
        return list(self._held)

    def keys_of(self, task_ids: Iterable[TaskId]) -> list[LeaseKey]:
        """Return the held deliveries of these tasks; unknown ones are left out."""
        return [key_of(self._held[one]) for one in task_ids if one in self._held]

    def keys_outside_engine(self) -> list[LeaseKey]:
        """Return the held deliveries that the engine has not been given."""
        return [key for key in self.keys() if key not in self._in_engine]

    async def wait_for_drop(self, timeout_s: float, since: int | None = None) -> None:
        """Return when a lease is dropped, or after ``timeout_s``.

        ``since``: a value of ``drops``; a lease that was dropped after it ends the wait at once.
        """
        if since is not None and since != self.drops:
            return
        self._dropped.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._dropped.wait()
        except TimeoutError:
            return
