"""The Lua library: loaded once per server, called by typed methods, one round trip each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from forebay.core.request import TaskId
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Fence, NewTask
from forebay.queue.schema import KEY_NAMES, Keys

PARTS: Final = ("base.lua", "door.lua", "worker.lua", "register.lua")

LeaseRow = tuple[TaskId, Fence, int, int, str, str, int]
"""Task, fence, deliveries, cost, request, priority, ms left to the deadline (negative: none)."""


@cache
def library_source() -> tuple[str, str]:
    """Return the library's version (a digest of its text) and its whole text."""
    folder = files("forebay.queue") / "lua"
    names = ", ".join(f"{name} = '{shape}'" for name, shape in KEY_NAMES.items())
    body = "\n".join((folder / part).read_text(encoding="utf-8") for part in PARTS)
    body = f"local KEY = {{ {names} }}\n{body}"
    version = hashlib.sha256(body.encode()).hexdigest()[:12]
    head = f"#!lua name=forebay_{version}\nlocal VERSION = '{version}'\n"
    return version, head + body


class Library:
    """The functions of the library for one queue. Redis errors come through as they are.

    Every function may be sent twice with the same arguments and then acts once; that is what
    lets the connection retry. Lists of leases are (task, fence).
    """

    def __init__(self, redis: Redis, keys: Keys, limits: QueueLimits) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits
        self._args = limits.script_args()
        self._version, self._source = library_source()

    async def load(self) -> None:
        """Load the library, over itself if it is there."""
        await self._redis.function_load(self._source, replace=True)

    async def enqueue(self, task: NewTask, request: str) -> tuple[str, str | int, int]:
        """Return ("ok", position, 0) or ("full", "tasks" | "tokens", how many there are)."""
        deadline_ms = 0 if task.deadline_s is None else max(1, round(task.deadline_s * 1000))
        reply = await self._call(
            "enqueue",
            task.task_id,
            task.tenant,
            int(task.priority),
            task.request.model,
            request,
            task.cost.total,
            deadline_ms,
            self._limits.max_waiting,
            self._limits.max_waiting_tokens,
        )
        return reply[0], reply[1], reply[2] if len(reply) > 2 else 0

    async def describe(self, task_id: TaskId) -> tuple[dict[str, str], int] | None:
        """Return a task's fields and its position (-1 unless it waits), or None."""
        reply = await self._call("describe", task_id)
        if not reply:
            return None
        flat: list[str] = reply[0]
        return dict(zip(flat[::2], flat[1::2], strict=True)), int(reply[1])

    async def cancel(self, task_id: TaskId) -> bool:
        """Return whether the task was waiting (it has ended) or leased (it is flagged)."""
        return bool(await self._call("cancel", task_id))

    async def depth(self) -> tuple[int, int, int, int, int]:
        """Return waiting, leased, dead, waiting tokens, age of the oldest waiting task in ms."""
        waiting, leased, dead, tokens, oldest = await self._call("depth")
        return waiting, leased, dead, tokens, oldest

    async def workers(self) -> int:
        """Return how many workers were heard of within one lease."""
        return int(await self._call("workers"))

    async def claim(self, worker: str, limit: int, free_tokens: int, nonce: str) -> list[LeaseRow]:
        """Return new leases; for the same nonce the same ones."""
        reply = await self._call("claim", worker, limit, free_tokens, nonce)
        return [tuple(lease) for lease in reply]

    async def heartbeat(
        self, worker: str, leases: Sequence[tuple[TaskId, Fence]], *, serving: bool
    ) -> tuple[list[TaskId], list[TaskId]]:
        """Return the ids that are lost, and those that are cancelled."""
        lost, cancelled = await self._call("heartbeat", worker, int(serving), *_flat(leases))
        return lost, cancelled

    async def finish(
        self, outcomes: Sequence[tuple[TaskId, Fence, str, str, str, str, str, str]]
    ) -> list[TaskId]:
        """Store (task, fence, text, reason, usage, code, message, more); return the stored ids."""
        return list(await self._call("finish", *_flat(outcomes)))

    async def release(self, leases: Sequence[tuple[TaskId, Fence]]) -> list[TaskId]:
        """Return the ids given back."""
        return list(await self._call("release", *_flat(leases)))

    async def redeliver(self, leases: Sequence[tuple[TaskId, Fence]], why: str) -> list[TaskId]:
        """Return the ids given back, the delivery counted."""
        return list(await self._call("redeliver", why, *_flat(leases)))

    async def reap(self, worker: str) -> list[TaskId]:
        """Return the ids taken from a dead worker."""
        return list(await self._call("reap", worker))

    async def append(
        self, nonce: str, writes: Sequence[tuple[TaskId, Fence, str, int, str]]
    ) -> list[TaskId]:
        """Return the ids whose fence was stale."""
        return list(await self._call("append", nonce, *_flat(writes)))

    async def ping(self) -> None:
        """Ask the server for nothing."""
        await self._redis.ping()

    async def _call(self, name: str, *args: str | int) -> Any:
        function = f"forebay_{self._version}_{name}"
        try:
            return await self._fcall(function, args)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        # A server that was flushed or replaced while we ran.
        await self.load()
        return await self._fcall(function, args)

    async def _fcall(self, function: str, args: Sequence[str | int]) -> Any:
        return await self._redis.fcall(function, 1, self._keys.meta, *self._args, *args)


def _flat(rows: Sequence[Sequence[str | int]]) -> list[str | int]:
    return [value for row in rows for value in row]
