"""No client hears yes before its picture is safe; a worker need not wait for that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis

from forebay.admission.pool import DecoderPool
from forebay.core.errors import StorageFullError
from forebay.queue.blobs import FolderBlobs
from tests.admission.pictures import picture
from tests.api.door import Door, eventually, open_door


class SlowDisk(FolderBlobs):
    """A disk that takes what was put only once ``spun`` is set, or says that it is full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.spun = asyncio.Event()
        self.full = False

    async def settle(self, sha256s: Sequence[str]) -> None:
        await self.spun.wait()
        if self.full:
            raise StorageFullError("The disk for pictures is full.", retry_after=60)
        await super().settle(sha256s)


async def ask(door: Door) -> tuple[int, str]:
    files = {"image": ("a.jpg", picture(), "image/jpeg")}
    answer = await door.http.post("/predict", files=files, data={"prompt": "What is it?"})
    return answer.status_code, answer.text


async def test_a_client_hears_yes_when_its_picture_is_safe_and_a_worker_begins_before(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    disk = SlowDisk(tmp_path / "blobs")
    async with open_door(redis, tmp_path / "blobs", decoders, blobs=disk) as door:
        asking = asyncio.create_task(ask(door))
        await eventually(door.waiting)
        [lease] = await door.queue.claim("w", 1, 10**9)
        assert await disk.get(lease.request.images[0].sha256)
        assert not asking.done()
        disk.spun.set()
        assert (await asking)[0] == 200


async def test_a_task_whose_picture_may_be_lost_is_not_taken(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    disk = SlowDisk(tmp_path / "blobs")
    disk.full = True
    async with open_door(redis, tmp_path / "blobs", decoders, blobs=disk) as door:
        asking = asyncio.create_task(ask(door))
        await eventually(door.waiting)
        disk.spun.set()
        status, said = await asking
        assert (status, "disk for pictures is full" in said) == (507, True)
        assert await door.waiting() == 0
        disk.full = False
        assert (await ask(door))[0] == 200  # nothing is relied on that was not safe
        assert await door.waiting() == 1
