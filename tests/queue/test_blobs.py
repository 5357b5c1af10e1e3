from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from forebay.core.errors import StorageFullError
from forebay.queue.blobs import FolderBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_bytes_come_back_by_their_hash(blobs: FolderBlobs) -> None:
    content = os.urandom(1000)
    sha256 = await blobs.put(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert await blobs.get(sha256) == content


async def test_the_same_bytes_are_kept_once(blobs: FolderBlobs, tmp_path: Path) -> None:
    assert await blobs.put(b"x") == await blobs.put(b"x")
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("name", ["0" * 64, "", "../secret", "A" * 64, "0" * 63 + "/"])
async def test_what_is_not_there_is_a_key_error(blobs: FolderBlobs, name: str) -> None:
    with pytest.raises(KeyError):
        await blobs.get(name)


@pytest.mark.parametrize("damage", [b"", b"other", b"conten"])
async def test_damaged_bytes_are_never_returned_and_can_be_stored_again(
    blobs: FolderBlobs, tmp_path: Path, damage: bytes
) -> None:
    sha256 = await blobs.put(b"content")
    files(tmp_path)[0].write_bytes(damage)
    with pytest.raises(KeyError):
        await blobs.get(sha256)
    assert await blobs.put(b"content") == sha256
    assert await blobs.get(sha256) == b"content"


async def test_a_full_store_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path, max_bytes=100)
    kept = await blobs.put(b"a" * 60)
    with pytest.raises(StorageFullError):
        await blobs.put(b"b" * 60)
    assert len(files(tmp_path)) == 1
    assert await blobs.put(b"a" * 60) == kept
    await blobs.put(b"c" * 40)


async def test_a_full_disk_refuses_and_leaves_nothing_half_written(
    blobs: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageFullError):
        await blobs.put(b"x" * 1000)
    assert files(tmp_path) == []


async def test_a_sweep_removes_what_is_old_and_what_was_never_finished(
    blobs: FolderBlobs, tmp_path: Path
) -> None:
    old, read, stored_again = [await blobs.put(content) for content in (b"1", b"2", b"3")]
    unfinished = tmp_path / "blobs" / old[:2] / ".new-abc"
    unfinished.write_bytes(b"")
    for path in files(tmp_path):
        os.utime(path, (0, time.time() - 10_000))
    await blobs.get(read)
    await blobs.put(b"3")
    assert await blobs.sweep(older_than_s=5_000) == 1
    assert {path.name for path in files(tmp_path)} == {read, stored_again}
