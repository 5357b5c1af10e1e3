from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from forebay.core.request import ImagePart, Message, Role, TaskId
from forebay.queue.address import parse_address
from forebay.queue.archive import MANIFEST, reading
from forebay.queue.backup import back_up, restore
from forebay.queue.blobs import FolderBlobs
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.errors import BackupError
from forebay.queue.opening import OpenQueue, open_queue
from tests.queue.making import PLENTY, answer, names, task


@asynccontextmanager
async def queue_in(folder: Path) -> AsyncIterator[OpenQueue]:
    with EmbeddedValkey(folder) as server:
        async with open_queue(parse_address(server.url)) as opened:
            yield opened


async def with_picture(name: str, blobs: FolderBlobs) -> tuple[object, str]:
    sha256 = await blobs.put(name.encode() * 100)
    new = task(name)
    part = ImagePart(sha256, 28, 28)
    messages = (Message(Role.USER, (part,)), *new.request.messages)
    return replace(new, request=replace(new.request, messages=messages)), sha256


async def answer_all(opened: OpenQueue) -> set[str]:
    done: set[str] = set()
    while leases := await opened.queue.claim("w", 100, PLENTY):
        done.update(await opened.queue.finish([answer(one) for one in leases]))
    return done


async def test_every_task_accepted_before_a_backup_under_load_is_answered_after_it(
    tmp_path: Path,
) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    file = tmp_path / "queue.backup"
    accepted: dict[str, tuple[float, str]] = {}
    async with queue_in(tmp_path / "queue") as opened:

        async def load() -> None:
            for number in range(100_000):
                new, sha256 = await with_picture(f"t{number}", blobs)
                await opened.queue.enqueue(new)  # type: ignore[arg-type]
                accepted[f"t{number}"] = (time.monotonic(), sha256)

        loading = asyncio.create_task(load())
        while len(accepted) < 50:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (first,) = await opened.queue.claim("w", 1, PLENTY)
        await opened.queue.finish([answer(first, "before")])
        began = time.monotonic()
        manifest, size = await asyncio.to_thread(
            back_up, tmp_path / "queue", tmp_path / "blobs", file
        )
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    before = {name for name, (at, _) in accepted.items() if at < began} - {first.task_id}
    assert len(accepted) > len(before)
    assert manifest.tasks >= len(before)
    assert not manifest.missing
    assert file.stat().st_size == size
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [one for one in os.listdir(tmp_path) if one.startswith(".")]  # noqa: PTH208

    restored = restore(file, tmp_path / "other" / "queue", tmp_path / "other" / "blobs")
    assert restored == manifest
    other = FolderBlobs(tmp_path / "other" / "blobs")
    for name in before:
        assert await other.get(accepted[name][1]) == name.encode() * 100
    async with queue_in(tmp_path / "other" / "queue") as opened:
        record = await opened.queue.get(first.task_id)
        assert record is not None
        assert record.text == "before"
        assert before <= await answer_all(opened)
    # What was done after the restore is durable: the next start reads it, not the snapshot.
    async with queue_in(tmp_path / "other" / "queue") as opened:
        assert (await opened.queue.depth()).waiting == 0
        record = await opened.queue.get(TaskId(min(before)))
        assert record is not None
        assert record.text == "42"


async def filled(folder: Path, *task_names: str) -> Path:
    async with queue_in(folder) as opened:
        for name in task_names:
            await opened.queue.enqueue(task(name))
    return folder


async def test_a_queue_that_is_stopped_is_backed_up_too(tmp_path: Path) -> None:
    await filled(tmp_path / "queue", "a", "b")
    manifest, _ = await asyncio.to_thread(
        back_up, tmp_path / "queue", tmp_path / "blobs", tmp_path / "file"
    )
    assert manifest.tasks == 2
    await asyncio.to_thread(restore, tmp_path / "file", tmp_path / "new", tmp_path / "blobs")
    async with queue_in(tmp_path / "new") as opened:
        assert names(await opened.queue.claim("w", 9, PLENTY)) == ["a", "b"]


async def test_a_queue_that_is_there_is_refused_or_set_aside(tmp_path: Path) -> None:
    await filled(tmp_path / "queue", "a")
    await asyncio.to_thread(back_up, tmp_path / "queue", tmp_path / "blobs", tmp_path / "file")
    await filled(tmp_path / "queue", "b")
    with pytest.raises(BackupError, match="--force"):
        await asyncio.to_thread(restore, tmp_path / "file", tmp_path / "queue", tmp_path / "blobs")
    async with queue_in(tmp_path / "queue") as opened:
        with pytest.raises(BackupError, match="is running"):
            await asyncio.to_thread(
                restore, tmp_path / "file", tmp_path / "queue", tmp_path / "blobs", force=True
            )
        assert (await opened.queue.depth()).waiting == 2
    await asyncio.to_thread(
        restore, tmp_path / "file", tmp_path / "queue", tmp_path / "blobs", force=True
    )
    async with queue_in(tmp_path / "queue") as opened:
        assert names(await opened.queue.claim("w", 9, PLENTY)) == ["a"]
    (aside,) = [one for one in os.listdir(tmp_path) if one.startswith("queue.before-")]  # noqa: PTH208
    async with queue_in(tmp_path / aside) as opened:
        assert names(await opened.queue.claim("w", 9, PLENTY)) == ["a", "b"]


@pytest.mark.parametrize("harm", ["flipped", "cut", "swapped", "other", "nothing", "outside"])
async def test_a_backup_that_is_not_whole_is_refused_and_changes_nothing(
    tmp_path: Path, harm: str
) -> None:
    await filled(tmp_path / "queue", "a")
    file = tmp_path / "file"
    await asyncio.to_thread(back_up, tmp_path / "queue", tmp_path / "blobs", file)
    content = bytearray(file.read_bytes())
    if harm == "flipped":
        at = content.index(b"REDIS00") if b"REDIS00" in content else content.index(b"VALKEY")
        content[at + 40] ^= 1
    elif harm == "cut":
        del content[len(content) // 2 :]
    elif harm == "other":
        content = bytearray(b"PK something else entirely" * 100)
    if harm == "nothing":
        file.unlink()
    elif harm in ("swapped", "outside"):
        rewrite(file, harm)
    else:
        file.write_bytes(content)
    with pytest.raises(BackupError):
        await asyncio.to_thread(restore, file, tmp_path / "new" / "queue", tmp_path / "new" / "b")
    assert not (tmp_path / "new" / "queue").exists()
    assert not (tmp_path / "outside").exists()


def rewrite(file: Path, harm: str) -> None:
    """Write a tar with another form in its manifest, or with a member that climbs out."""
    with reading(file) as (_, tar):
        members = [(one, tar.extractfile(one).read()) for one in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(file, "w") as tar:
        for member, content in members:
            if member.name == MANIFEST and harm == "swapped":
                content = json.dumps(json.loads(content) | {"form": 99}).encode()  # noqa: PLW2901
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if harm == "outside":
            member = tarfile.TarInfo("../outside")
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))


async def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    await filled(tmp_path / "queue", "a")
    with pytest.raises(BackupError, match="cannot be written"):
        await asyncio.to_thread(
            back_up, tmp_path / "queue", tmp_path / "blobs", tmp_path / "none" / "file"
        )
    with pytest.raises(BackupError, match="no queue"):
        await asyncio.to_thread(
            back_up, tmp_path / "nothing", tmp_path / "blobs", tmp_path / "file"
        )


async def test_a_picture_that_is_gone_is_told(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    async with queue_in(tmp_path / "queue") as opened:
        new, sha256 = await with_picture("a", blobs)
        await opened.queue.enqueue(new)  # type: ignore[arg-type]
        (tmp_path / "blobs" / sha256[:2] / sha256).unlink()
        manifest, _ = await asyncio.to_thread(
            back_up, tmp_path / "queue", tmp_path / "blobs", tmp_path / "file"
        )
    assert manifest.missing == (sha256,)
