"""The folder of pictures."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.core.errors import QueueUnavailableError, StorageFullError
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
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "utime", no_space)  # the last step before it gets its name
    with pytest.raises(StorageFullError):
        await blobs.put(b"x" * 1000)
    assert files(tmp_path) == []


LIMITED_PUT = """
import asyncio, resource, sys
from pathlib import Path
from forebay.core.errors import StorageFullError
from forebay.queue.blobs import FolderBlobs

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
blobs = FolderBlobs(Path(sys.argv[1]))
asyncio.run(blobs.put(b"a" * 100_000))
try:
    asyncio.run(blobs.put(b"b" * 100_001))
except StorageFullError as error:
    print(error.status, error.code)
"""


def test_a_disk_that_takes_no_more_is_a_clear_error_and_nothing_is_half_written(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED_PUT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "507 storage_full\n"
    assert [path.stat().st_size for path in files(tmp_path)] == [100_000]


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(QueueUnavailableError):
        await FolderBlobs(tmp_path / "file").put(b"x")


async def test_what_was_never_finished_goes_with_the_old(tmp_path: Path) -> None:
    now = 1_000_000.0
    blobs = FolderBlobs(tmp_path, clock=lambda: now)
    sha256 = await blobs.put(b"1")
    unfinished = tmp_path / sha256[:2] / ".new-abc"
    unfinished.write_bytes(b"")
    os.utime(unfinished, (now, now))
    now += 4000
    assert [one async for batch in blobs.old(3999) for one in batch] == [sha256]
    assert not unfinished.exists()
    assert [one async for batch in blobs.old(4001) for one in batch] == []
