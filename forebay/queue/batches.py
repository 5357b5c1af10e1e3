"""Batches as the queue's server keeps them: what was asked, whose turn it is, how far it has come.

One API process at a time has a batch in hand, by a lease; what another writes is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from redis.asyncio import Redis

from forebay.core.errors import QueueFullError
from forebay.core.request import Tenant
from forebay.queue.connection import unavailable
from forebay.queue.functions import Functions
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import BATCH_TTL_S, BATCHES_MOST, Keys

_FULL_RETRY_S: Final = 60.0
_INDEX_TTL_S: Final = BATCH_TTL_S + 2 * 86_400  # a batch may take a day before its time begins


class BatchStatus(StrEnum):
    """Where a batch stands, in OpenAI's words. ``CANCELLING`` is told, never written."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self in _FINAL


_FINAL: Final = frozenset(
    {BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch. ``at``: when it came to each status, seconds since the epoch, by the status.

    ``caller``: who asked, in the door's own words. ``output_ttl_s``: how long what it writes is
    kept. ``output_id`` and ``errors_id`` are set when there is such a file. ``faults``: why it
    failed, as clients are told.
    """

    batch_id: str
    tenant: Tenant
    endpoint: str
    input_id: str
    created_s: int
    expires_s: int
    output_ttl_s: int
    window: str
    caller: Mapping[str, Any]
    metadata: Mapping[str, str] | None = None
    status: BatchStatus = BatchStatus.VALIDATING
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_id: str | None = None
    errors_id: str | None = None
    faults: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[str, int] | None = None
    at: Mapping[str, int] = field(default_factory=dict)

    @property
    def told_status(self) -> BatchStatus:
        """What clients see: a batch that is to end says so until it has."""
        ending = "cancelling" in self.at and not self.status.final
        return BatchStatus.CANCELLING if ending else self.status


class BatchLibrary(Functions):
    """The functions for batches."""

    async def open(self, batch_id: str, tenant: str, ttl_ms: int, fields: Sequence[str]) -> bool:
        """Return whether there was room."""
        return bool(await self._call("batch_open", batch_id, tenant, BATCHES_MOST, ttl_ms, *fields))

    async def lease(self, owner: str, lease_ms: int) -> str:
        """Return a batch that is the owner's now; empty where none waits."""
        return str(await self._call("batch_lease", owner, lease_ms))

    async def write(
        self, batch_id: str, owner: str, lease_ms: int, ttl_ms: int, fields: Sequence[str]
    ) -> int:
        """Return -1 when another holds it, 1 when its end is asked for, else 0."""
        return int(await self._call("batch_write", batch_id, owner, lease_ms, ttl_ms, *fields))

    async def cancel(self, batch_id: str, at_s: int) -> bool:
        """Return whether it will end, or is about to."""
        return bool(await self._call("batch_cancel", batch_id, at_s))


class RedisBatches:
    """Records of batches on one Redis; every method raises QueueUnavailableError without it."""

    def __init__(
        self,
        redis: Redis,
        name: str = "main",
        limits: QueueLimits | None = None,
        *,
        lease_s: float = 20.0,
    ) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._library = BatchLibrary(redis, self._keys, limits or QueueLimits())
        self.lease_s = lease_s

    async def open(self, batch: BatchRecord) -> None:
        """Keep a new batch, for whichever process takes it up. Raises QueueFullError."""
        async with unavailable("keeping a batch"):
            taken = await self._library.open(
                batch.batch_id, batch.tenant, _INDEX_TTL_S * 1000, _fields(batch)
            )
        if not taken:
            raise QueueFullError(
                f"{BATCHES_MOST} batches have not ended, which is the limit",
                retry_after=_FULL_RETRY_S,
            )

    async def get(self, batch_id: str) -> BatchRecord | None:
        """Return a record, None where there is none (any more)."""
        async with unavailable("looking for a batch"):
            fields = await self._redis.hgetall(self._keys.batch(batch_id))
        named = {str(name): str(value) for name, value in fields.items()}
        return _record(batch_id, named) if named else None

    async def newest_first(self, tenant: Tenant, after: str | None, limit: int) -> list[str]:
        """Return ids of a tenant's batches, those made before ``after`` where it is given.

        Raises KeyError where ``after`` is none of them.
        """
        index = self._keys.batches(tenant)
        async with unavailable("listing batches"):
            start = 0
            if after is not None:
                rank = await self._redis.zrevrank(index, after)
                if not isinstance(rank, int):
                    raise KeyError(after)
                start = rank + 1
            return [
                str(one) for one in await self._redis.zrevrange(index, start, start + limit - 1)
            ]

    async def drop_from_list(self, tenant: Tenant, batch_ids: Sequence[str]) -> None:
        """Leave out of the list what has expired."""
        async with unavailable("listing batches"):
            await self._redis.zrem(self._keys.batches(tenant), *batch_ids)

    async def cancel(self, batch_id: str, at_s: int) -> bool:
        """Ask for a batch's end; False when it has ended or is unknown."""
        async with unavailable("cancelling a batch"):
            return await self._library.cancel(batch_id, at_s)

    async def take(self, owner: str) -> BatchRecord | None:
        """Take a batch that nobody has in hand, for ``lease_s`` at first."""
        async with unavailable("taking a batch"):
            batch_id = await self._library.lease(owner, round(self.lease_s * 1000))
        return await self.get(batch_id) if batch_id else None

    async def keep(self, batch_id: str, owner: str, **fields: Any) -> bool:
        """Renew the lease and write ``fields``; return whether the batch's end is asked for.

        Raises LeaseLostError.
        """
        return await self._write(batch_id, owner, round(self.lease_s * 1000), 0, fields)

    async def give_back(self, batch_id: str, owner: str) -> None:
        """Let another process go on with it. Raises LeaseLostError."""
        await self._write(batch_id, owner, 0, 0, {})

    async def close(self, batch_id: str, owner: str, **fields: Any) -> None:
        """Write the end of a batch. Raises LeaseLostError."""
        await self._write(batch_id, owner, 0, BATCH_TTL_S * 1000, fields)

    async def _write(
        self, batch_id: str, owner: str, lease_ms: int, ttl_ms: int, fields: Mapping[str, Any]
    ) -> bool:
        rows = [text for name, value in fields.items() for text in (name, json.dumps(value))]
        async with unavailable("writing a batch"):
            reply = await self._library.write(batch_id, owner, lease_ms, ttl_ms, rows)
        if reply < 0:
            raise LeaseLostError(batch_id)
        return reply == 1


class LeaseLostError(Exception):
    """Another process has the batch in hand now."""


_OWN: Final = ("endpoint", "input_id", "created_s", "expires_s", "output_ttl_s", "window", "caller")
_TIME: Final = "_at"


def _fields(batch: BatchRecord) -> list[str]:
    plain = {name: getattr(batch, name) for name in _OWN} | {"metadata": batch.metadata}
    return [text for name, value in plain.items() for text in (name, json.dumps(value))]


def _record(batch_id: str, fields: Mapping[str, str]) -> BatchRecord:
    known = {name: json.loads(text) for name, text in fields.items() if name not in _NOT_JSON}
    at = {name.removesuffix(_TIME): known.pop(name) for name in list(known) if name.endswith(_TIME)}
    status = BatchStatus(known.pop("status", BatchStatus.VALIDATING))
    tenant = Tenant(fields["tenant"])
    return BatchRecord(batch_id=batch_id, tenant=tenant, status=status, at=at, **known)


_NOT_JSON: Final = ("tenant", "owner")
