"""A queue of several partitions: each a whole queue in a slot of its own, found by the tenant.

A tenant lives in one partition, so what is exact for a tenant (order, quotas, idempotency, equal
answers) stays exact. What is the whole queue's is divided (caps) or added up (size).
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Self, TypeVar

from forebay.core.errors import QueueUnavailableError
from forebay.core.request import TaskId, Tenant
from forebay.queue.connection import LONGEST_BLOCK_S
from forebay.queue.groups import Group
from forebay.queue.library_worker import Company
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import (
    Enqueued,
    Fence,
    Glimpse,
    HeartbeatReply,
    Idempotency,
    Lease,
    NewTask,
    Outcome,
    QueueDepth,
    TaskRecord,
)
from forebay.queue.redis_queue import RedisQueue

T = TypeVar("T")
R = TypeVar("R")

MOST_PARTITIONS: Final = 64
PAUSE_S: Final = 0.5


def partition_name(queue: str, partition: int, partitions: int) -> str:
    """Return the name under which a partition is a queue of its own."""
    return queue if partitions == 1 else f"{queue}:{partition}"


def partition_limits(limits: QueueLimits, partitions: int) -> QueueLimits:
    """Return a partition's share of the whole queue's caps, rounded up."""
    return replace(
        limits,
        max_waiting=-(-limits.max_waiting // partitions),
        max_waiting_tokens=-(-limits.max_waiting_tokens // partitions),
    )


def partition_of(tenant: Tenant, partitions: int) -> int:
    """Return a tenant's partition: the same in every process and release."""
    return zlib.crc32(tenant.encode()) % partitions


def partition_in(task_id: TaskId, partitions: int) -> int | None:
    """Return the partition that a task's id names, or None for an id that no queue gave."""
    number, dash, rest = task_id.partition("-")
    if not (dash and rest and number.isascii() and number.isdigit() and len(number) <= 2):
        return None
    return int(number) if int(number) < partitions else None


class PartitionedQueue:
    """Submitter and LeaseHolder over several of them, one after the other in one address.

    A partition whose server is away refuses what is its tenants', and the others go on. A worker
    that is idle in a partition gets a task of it whatever its cost, as it would from a whole
    queue. Use ``aclose`` at the end.
    """

    def __init__(self, partitions: Sequence[RedisQueue]) -> None:
        self._partitions = tuple(partitions)
        self._turn = 0
        self._apart: dict[
            str, int
        ] = {}  # worker -> the partition whose suspect it holds, or awaits
        self._work = asyncio.Event()
        self._wanted = asyncio.Event()
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Verify the servers and load the library. Raises QueueSetupError and others."""
        await asyncio.gather(*(one.start() for one in self._partitions))

    async def aclose(self) -> None:
        """End the watching for work."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def enqueue(self, task: NewTask) -> Enqueued:
        """Keep the task in its tenant's partition; its id then begins with the partition's."""
        number = partition_of(task.tenant, len(self._partitions))
        named = replace(task, task_id=TaskId(f"{number}-{task.task_id}"))
        return await self._partitions[number].enqueue(named)

    async def replayed(self, tenant: Tenant, idempotency: Idempotency) -> Enqueued | None:
        """Return the task that this key of a tenant names."""
        number = partition_of(tenant, len(self._partitions))
        return await self._partitions[number].replayed(tenant, idempotency)

    async def get(self, task_id: TaskId) -> TaskRecord | None:
        """Return what is known of a task."""
        home = self._home(task_id)
        return await home.get(task_id) if home else None

    async def glance(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Glimpse]:
        """Return where each task stands, one call to each partition that has some of them."""
        homes = self._by_home(task_ids, lambda task_id: task_id)
        replies = await asyncio.gather(*(home.glance(mine) for home, mine in homes.items()))
        return {task_id: seen for reply in replies for task_id, seen in reply.items()}

    async def cancel(self, task_id: TaskId) -> bool:
        """Ask for a task's end."""
        home = self._home(task_id)
        return await home.cancel(task_id) if home else False

    async def depth(self) -> QueueDepth:
        """Return the size of the partitions whose servers answer."""
        return add_depths(await self._reachable(lambda one: one.depth()))

    async def workers(self) -> int:
        """Return how many workers were heard of lately: each is heard of in every partition."""
        return max(await self._reachable(lambda one: one.workers()))

    async def ping(self) -> None:
        """Raise QueueUnavailableError unless a server answers."""
        await self._reachable(lambda one: one.ping())

    async def claim(
        self,
        worker: str,
        limit: int,
        free_tokens: int,
        held: Sequence[TaskId] = (),
        *,
        group: Group = Group.STABLE,
    ) -> list[Lease]:
        """Lease tasks from the partitions in turn; another one is first each time.

        A suspect runs alone here too, beside nothing of any partition: a worker that holds one, or
        that runs empty for one, asks for nothing else.
        """
        found: list[Lease] = []
        troubles: list[QueueUnavailableError] = []
        here = Counter(partition_in(task_id, len(self._partitions)) for task_id in held)
        for number in self._next_turns(worker):
            if len(found) >= limit or (found and free_tokens <= 0):
                break
            elsewhere = len(held) - here[number] + len(found)
            try:
                leases, company = await self._partitions[number].claim_beside(
                    worker, limit - len(found), free_tokens, elsewhere, group
                )
            except QueueUnavailableError as error:
                troubles.append(error)
                if self._apart.get(worker) == number and here[number]:
                    break  # what it holds of there may be a suspect
                continue
            free_tokens -= sum(lease.cost_total for lease in leases)
            found.extend(leases)
            if company is not Company.ANY:
                self._apart[worker] = number
                break
            if self._apart.get(worker) == number:
                del self._apart[worker]
        if len(troubles) == len(self._partitions):
            raise troubles[0]
        return found

    def _next_turns(self, worker: str) -> list[int]:
        """Return the partitions in the order of a claim: first where a suspect is in question."""
        self._turn = (self._turn + 1) % len(self._partitions)
        numbers = [*range(self._turn, len(self._partitions)), *range(self._turn)]
        first = self._apart.get(worker)
        return numbers if first is None else [first, *(one for one in numbers if one != first)]

    async def wait_for_work(self, timeout_s: float) -> None:
        """Return when work has arrived in a partition since the last wait, or after a while."""
        self._watch()
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._work.wait()
        except TimeoutError:
            return
        finally:
            self._wanted.clear()
        self._work.clear()

    def _watch(self) -> None:
        """Keep one blocking read a partition: to begin them anew at every wait costs dialling."""
        if not self._watchers:
            self._watchers = [
                asyncio.create_task(self._watch_one(one), name="queue-partition-watch")
                for one in self._partitions
            ]

    async def _watch_one(self, partition: RedisQueue) -> None:
        while True:
            await self._wanted.wait()
            try:
                await partition.wait_for_work(LONGEST_BLOCK_S)
            except QueueUnavailableError:
                await asyncio.sleep(PAUSE_S)  # the claim meets the same trouble, and tells it
            self._work.set()

    async def heartbeat(
        self,
        worker: str,
        leases: Sequence[tuple[TaskId, Fence]],
        *,
        serving: bool = True,
        group: Group = Group.STABLE,
    ) -> HeartbeatReply:
        """Renew leases where they are, and be heard of everywhere."""
        homes = self._by_home(leases, lambda lease: lease[0])
        replies = await self._reachable(
            lambda one: one.heartbeat(worker, homes.get(one, []), serving=serving, group=group)
        )
        unknown = frozenset(lease[0] for lease in leases if self._home(lease[0]) is None)
        return HeartbeatReply(
            unknown.union(*(one.lost for one in replies)),
            frozenset().union(*(one.cancelled for one in replies)),
        )

    async def finish(self, outcomes: Sequence[Outcome]) -> list[TaskId]:
        """Store results; see ``LeaseHolder``."""
        return await self._each(outcomes, lambda one: one.task_id, lambda q, mine: q.finish(mine))

    async def release(self, leases: Sequence[tuple[TaskId, Fence]]) -> list[TaskId]:
        """Give tasks back; see ``LeaseHolder``."""
        return await self._each(leases, lambda one: one[0], lambda q, mine: q.release(mine))

    async def redeliver(self, leases: Sequence[tuple[TaskId, Fence]], why: str) -> list[TaskId]:
        """Give tasks back as a dead worker's; see ``LeaseHolder``."""
        return await self._each(leases, lambda one: one[0], lambda q, mine: q.redeliver(mine, why))

    async def reap(self, worker: str) -> list[TaskId]:
        """Take back the leases of a dead worker where a server answers; elsewhere they run out."""
        return [each for ids in await self._reachable(lambda one: one.reap(worker)) for each in ids]

    def _home(self, task_id: TaskId) -> RedisQueue | None:
        number = partition_in(task_id, len(self._partitions))
        return None if number is None else self._partitions[number]

    def _by_home(
        self, items: Iterable[T], id_of: Callable[[T], TaskId]
    ) -> dict[RedisQueue, list[T]]:
        homes: defaultdict[RedisQueue, list[T]] = defaultdict(list)
        for item in items:
            if (home := self._home(id_of(item))) is not None:
                homes[home].append(item)
        return homes

    async def _each(
        self,
        items: Sequence[T],
        id_of: Callable[[T], TaskId],
        call: Callable[[RedisQueue, list[T]], Awaitable[list[TaskId]]],
    ) -> list[TaskId]:
        """Do a write in the partitions it concerns, all at once; it may be repeated as a whole."""
        homes = self._by_home(items, id_of)
        replies = await asyncio.gather(*(call(home, mine) for home, mine in homes.items()))
        return [task_id for ids in replies for task_id in ids]

    async def _reachable(self, call: Callable[[RedisQueue], Awaitable[R]]) -> list[R]:
        """Ask every partition. Raises QueueUnavailableError where none answers."""
        replies = await asyncio.gather(
            *(call(one) for one in self._partitions), return_exceptions=True
        )
        answers: list[R] = []
        troubles: list[QueueUnavailableError] = []
        for reply in replies:
            if isinstance(reply, QueueUnavailableError):
                troubles.append(reply)
            elif isinstance(reply, BaseException):
                raise reply
            else:
                answers.append(reply)
        if not answers:
            raise troubles[0]
        return answers


def add_depths(depths: Sequence[QueueDepth]) -> QueueDepth:
    """Return the size of all together; the oldest task is the oldest of any."""
    return QueueDepth(
        waiting=sum(one.waiting for one in depths),
        leased=sum(one.leased for one in depths),
        dead=sum(one.dead for one in depths),
        waiting_tokens=sum(one.waiting_tokens for one in depths),
        oldest_s=max(one.oldest_s for one in depths),
        delayed=sum(one.delayed for one in depths),
        drained=all(one.drained for one in depths),
        wait_s=_mean([one.wait_s for one in depths]),
        eta_error_s=_mean([one.eta_error_s for one in depths]),
        tokens_per_s=sum(one.tokens_per_s or 0.0 for one in depths) or None,
        ended=sum(one.ended for one in depths),
    )


def _mean(times: Sequence[float | None]) -> float | None:
    known = [one for one in times if one is not None]
    return sum(known) / len(known) if known else None
