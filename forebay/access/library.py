"""What access calls of the Lua library: each function with its types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from forebay.queue.functions import Functions
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import Keys, access_name


class CellCharge(NamedTuple):
    """One cell's part in a charge. ``interval_us``: between two units in the long run."""

    name: str
    interval_us: float
    burst: float
    cost: float


def access_keys(queue_name: str) -> Keys:
    """Return the keys of access, beside the queue's own: under another hash tag."""
    return Keys(access_name(queue_name))


class AccessLibrary(Functions):
    """The functions of access, for one queue."""

    def __init__(self, redis: Redis, queue_name: str) -> None:
        super().__init__(redis, access_keys(queue_name), QueueLimits())

    async def throttle(self, charges: Sequence[CellCharge]) -> tuple[int, int]:
        """Charge all cells or none; return (which one refuses, counted from 1, or 0; ms to wait).

        Sent twice it charges twice, which errs to the strict side by one.
        """
        values = [value for charge in charges for value in charge]
        which, wait_ms = await self._call("throttle", *values)
        return int(which), int(wait_ms)

    async def key_write(
        self, key_id: str, most: int, keep_ms: int, fields: Mapping[str, str]
    ) -> bool:
        """Keep a new key; False where there are as many as there may be."""
        pairs = [text for pair in fields.items() for text in pair]
        return bool(await self._call("key_write", key_id, most, keep_ms, *pairs))

    async def key_pepper(self, mark: str) -> bool:
        """Note which pepper keys are made under; False where there are keys of another one."""
        return bool(await self._call("key_pepper", mark))

    async def key_clear(self) -> int:
        """Forget every key and the pepper's mark; return how many keys there were."""
        return int(await self._call("key_clear"))

    async def key_rotate(
        self, key_id: str, before: str, after: str, good_until_s: float, now_s: float
    ) -> bool:
        """Put a key in another's place; False where that is gone or was changed meanwhile."""
        told = (key_id, before, after, f"{good_until_s:.3f}", f"{now_s:.3f}")
        return bool(await self._call("key_rotate", *told))

    async def key_revoke(self, key_id: str, now_s: float, keep_ms: int) -> bool:
        """Revoke a key; False for an unknown one."""
        return bool(await self._call("key_revoke", key_id, f"{now_s:.3f}", keep_ms))
