"""The queue itself, on Valkey or Redis: what the door and the workers hold."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from forebay.core.errors import (
    ForebayError,
    IdempotencyConflictError,
    PicturesNotHeldError,
    QueueFullError,
    RateLimitedError,
    TenantOverQuotaError,
)
from forebay.core.request import TaskId, Tenant
from forebay.queue.connection import (
    LONGEST_BLOCK_S,
    read_streams,
    unavailable,
    verify_server,
)
from forebay.queue.groups import Group
from forebay.queue.library import Library
from forebay.queue.library_door import Verdict
from forebay.queue.library_worker import Company, LeaseRow
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
    TaskError,
    TaskRecord,
)
from forebay.queue.records import (
    OutcomeRow,
    bounded,
    outcome_row,
    request_to_json,
    to_depth,
    to_enqueued,
    to_glimpse,
    to_lease,
    to_record,
)
from forebay.queue.schema import Keys


class RedisQueue:
    """Submitter and LeaseHolder on one Redis. Safe for many tasks of one event loop.

    Every method raises QueueUnavailableError when the server cannot be reached. ``name`` is the
    queue's; ``limits`` should be the same in every process.
    """

    def __init__(self, redis: Redis, name: str = "main", limits: QueueLimits | None = None) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._limits = limits or QueueLimits()
        self._library = Library(redis, self._keys, self._limits)
        self._last_wake = "0-0"
        self._unanswered_claims: dict[str, str] = {}
        self._due_at = math.inf

    async def start(self) -> None:
        """Verify the server and load the library.

        Raises QueueSetupError for a server that must not be used, QueueUnavailableError otherwise.
        """
        await verify_server(self._redis)
        async with unavailable("loading the library"):
            await self._library.load()

    async def enqueue(self, task: NewTask) -> Enqueued:
        """Keep the task; see ``Submitter``. An id that is there already is left as it is."""
        request = request_to_json(task.request, task.trace)
        async with unavailable("taking a task"):
            try:
                verdict = await self._library.enqueue(task, request)
            except OutOfMemoryError as error:
                raise QueueFullError(
                    "The queue's server has no memory left.",
                    retry_after=self._limits.retry_after_s,
                ) from error
        if verdict.kind != "ok":
            raise _refusal(verdict)
        return to_enqueued(verdict)

    async def replayed(self, tenant: Tenant, idempotency: Idempotency) -> Enqueued | None:
        """Return the task that this key names; see ``Submitter``."""
        async with unavailable("looking for a key"):
            verdict = await self._library.replay(tenant, idempotency)
        if verdict is None:
            return None
        if verdict.kind != "ok":
            raise _refusal(verdict)
        return to_enqueued(verdict)

    async def get(self, task_id: TaskId) -> TaskRecord | None:
        """Return what is known of a task, with its position while it waits."""
        async with unavailable("reading a task"):
            found = await self._library.describe(task_id)
        return to_record(task_id, found) if found else None

    async def glance(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Glimpse]:
        """Return where each task stands; see ``Submitter``."""
        if not task_ids:
            return {}
        async with unavailable("looking at tasks"):
            rows = await self._library.glance(task_ids)
        return {row.task_id: to_glimpse(row) for row in rows}

    async def cancel(self, task_id: TaskId) -> bool:
        """End a waiting task now; ask a leased one's worker to drop it."""
        async with unavailable("cancelling a task"):
            return await self._library.cancel(task_id)

    async def depth(self) -> QueueDepth:
        """Return the queue's size; leases and deadlines that ran out are seen to first."""
        async with unavailable("measuring the queue"):
            return to_depth(await self._library.depth())

    async def workers(self) -> int:
        """Return how many workers were heard of within one lease."""
        async with unavailable("counting workers"):
            return await self._library.workers()

    async def ping(self) -> None:
        """Raise QueueUnavailableError unless the server answers."""
        async with unavailable("pinging it"):
            await self._library.ping()

    async def claim(
        self,
        worker: str,
        limit: int,
        free_tokens: int,
        held: Sequence[TaskId] = (),
        *,
        group: Group = Group.STABLE,
    ) -> list[Lease]:
        """Lease tasks; see ``LeaseHolder``. One call at a time for each worker name."""
        del held  # the server knows
        leases, _ = await self.claim_beside(worker, limit, free_tokens, 0, group)
        return leases

    async def claim_beside(
        self,
        worker: str,
        limit: int,
        free_tokens: int,
        elsewhere: int,
        group: Group = Group.STABLE,
    ) -> tuple[list[Lease], Company]:
        """Lease tasks to a worker that holds so many of other queues; say what else it may take.

        A claim whose reply was lost is repeated under its old nonce by the next call, so tasks
        that the server leased to it come out then.
        """
        nonce = self._unanswered_claims.setdefault(worker, secrets.token_hex(8))
        async with unavailable("claiming tasks"):
            rows, due_ms, company = await self._library.claim(
                worker, limit, free_tokens, nonce, elsewhere, group
            )
        self._due_at = (
            asyncio.get_running_loop().time() + due_ms / 1000 if due_ms >= 0 else math.inf
        )
        leases = [lease for row in rows if (lease := to_lease(row)) is not None]
        if len(leases) < len(rows):
            await self._fail_unreadable(rows, {lease.task_id for lease in leases})
        del self._unanswered_claims[worker]
        return leases, company

    async def _fail_unreadable(self, rows: Sequence[LeaseRow], readable: set[TaskId]) -> None:
        error = TaskError("internal_error", "The stored request cannot be read by this release.")
        await self.finish(
            [Outcome(row[0], row[1], error=error) for row in rows if row[0] not in readable]
        )

    async def wait_for_work(self, timeout_s: float) -> None:
        """Return when work has arrived since the last claim that gave nothing, or after a while.

        It also returns when a delayed task is due that the last claim knew of.
        """
        loop = asyncio.get_running_loop()
        until = min(loop.time() + timeout_s, self._due_at)
        wake = self._keys.wake
        while (left := until - loop.time()) > 0:
            async with unavailable("waiting for work"):
                block_s = min(left, LONGEST_BLOCK_S)
                found = await read_streams(self._redis, {wake: self._last_wake}, block_s=block_s)
            if found:
                self._last_wake = found[wake][-1][0]
                return

    async def heartbeat(
        self,
        worker: str,
        leases: Sequence[tuple[TaskId, Fence]],
        *,
        serving: bool = True,
        group: Group = Group.STABLE,
    ) -> HeartbeatReply:
        """Renew leases; return those that are lost and those to abort."""
        async with unavailable("renewing leases"):
            lost, cancelled = await self._library.heartbeat(
                worker, leases, serving=serving, group=group
            )
        return HeartbeatReply(frozenset(lost), frozenset(cancelled))

    async def finish(self, outcomes: Sequence[Outcome]) -> list[TaskId]:
        """Store each result with its terminal stream entry, if its fence is current."""
        if not outcomes:
            return []
        async with unavailable("storing results"):
            return await self._library.finish([self._row(outcome) for outcome in outcomes])

    def _row(self, outcome: Outcome) -> OutcomeRow:
        return outcome_row(bounded(outcome, self._limits.max_answer_bytes))

    async def release(self, leases: Sequence[tuple[TaskId, Fence]]) -> list[TaskId]:
        """Give tasks back to their places in line, the delivery not counted."""
        if not leases:
            return []
        async with unavailable("releasing leases"):
            return await self._library.release(leases)

    async def redeliver(self, leases: Sequence[tuple[TaskId, Fence]], why: str) -> list[TaskId]:
        """Give tasks back as a dead worker's, at once; see ``LeaseHolder``."""
        if not leases:
            return []
        async with unavailable("giving tasks back"):
            return await self._library.redeliver(leases, why)

    async def reap(self, worker: str) -> list[TaskId]:
        """Return the tasks of a worker known to be dead, now rather than at lease expiry."""
        async with unavailable("reaping a worker's leases"):
            return await self._library.reap(worker)


def _refusal(verdict: Verdict) -> ForebayError:
    """Return the error that tells the client what the library refused."""
    retry_s = verdict.retry_ms / 1000
    there = f"{verdict.there} {verdict.where} are waiting"
    match verdict.kind:
        case "conflict":
            return IdempotencyConflictError(
                f"This key belongs to task {verdict.where}, which asked for something else."
            )
        case "unheld":
            return PicturesNotHeldError(
                "The request's pictures were stored too long ago.", retry_after=retry_s
            )
        case "rate":
            return RateLimitedError("This tenant sends faster than it may.", retry_after=retry_s)
        case "open":
            return TenantOverQuotaError(
                f"Of this caller {verdict.there} tasks have not ended.", retry_after=retry_s
            )
        case "quota":
            return TenantOverQuotaError(f"Of this tenant {there}.", retry_after=retry_s)
        case _:
            return QueueFullError(f"The queue is full: {there}.", retry_after=retry_s)
