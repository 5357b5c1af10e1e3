"""What every store of pictures promises, each on a real server or disk."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest
from redis.asyncio import Redis

from forebay.core.errors import PicturesNotHeldError, QueueUnavailableError, StorageFullError
from forebay.core.request import Tenant
from forebay.queue import blobs as blobs_module
from forebay.queue.blobs import FolderBlobs
from forebay.queue.blobs_redis import HeldBlobs, RedisBlobs, RedisClaims
from forebay.queue.blobs_s3 import Bucket, S3Blobs
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.errors import BlobStoreSetupError
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import BlobStore
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from forebay.queue.sweep import sweep_blobs
from tests.queue.making import PLENTY, answer, picture_task
from tests.queue.stores import S3Server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    with server.running():
        yield server


@pytest.fixture(params=["folder", "redis", "s3"])
async def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, queue: RedisQueue, redis: Redis, keys: Keys
) -> BlobStore:
    if request.param == "folder":
        return FolderBlobs(tmp_path)
    if request.param == "redis":
        return RedisBlobs(redis, keys.name)
    server: S3Server = request.getfixturevalue("s3")
    return S3Blobs(server.bucket())


async def test_bytes_come_back_by_their_hash(blobs: BlobStore) -> None:
    content = os.urandom(200_000)
    sha256 = await blobs.put(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert await blobs.put(content) == sha256
    assert await blobs.get(sha256) == content


@pytest.mark.parametrize("name", ["0" * 64, "", "../secret", "A" * 64, "0" * 63 + "/"])
async def test_what_is_not_there_is_a_key_error(blobs: BlobStore, name: str) -> None:
    with pytest.raises(KeyError):
        await blobs.get(name)


async def test_many_at_once_come_back_each_as_itself(blobs: BlobStore) -> None:
    contents = [os.urandom(10_000) for _ in range(20)]
    names = await asyncio.gather(*map(blobs.put, [*contents, *contents]))
    assert await asyncio.gather(*map(blobs.get, names[:20])) == contents


async def _fill(blobs: BlobStore, size: int, stored: list[str]) -> None:
    for _ in range(500):
        stored.append(await blobs.put(os.urandom(size)))


async def test_what_is_put_can_be_settled_once_or_often(blobs: BlobStore) -> None:
    sha256s = [await blobs.put(os.urandom(1000)) for _ in range(3)]
    await blobs.settle(sha256s)
    await blobs.settle([*sha256s, *sha256s])
    await blobs.settle([])


# A folder.


async def test_a_picture_and_its_name_are_synced_once_readers_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FolderBlobs(tmp_path)
    synced: list[Path] = []
    sync = blobs_module._sync

    def told(path: Path) -> None:
        assert path.exists()
        sync(path)
        synced.append(path)

    monkeypatch.setattr(blobs_module, "_sync", told)
    sha256 = await blobs.put(b"content")
    assert synced == []
    await blobs.settle([sha256])
    path = tmp_path / sha256[:2] / sha256
    assert synced == [path, path.parent]


async def test_what_a_loss_of_power_left_half_written_is_written_anew(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    sha256 = await blobs.put(b"content")
    (tmp_path / sha256[:2] / sha256).write_bytes(b"")
    assert await blobs.put(b"content") == sha256
    assert await blobs.get(sha256) == b"content"


async def test_what_a_sweep_has_in_hand_needs_no_settling(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    sha256 = await blobs.put(b"content")
    assert await blobs.set_aside(sha256)
    await blobs.settle([sha256])


async def test_a_disk_that_cannot_be_synced_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = FolderBlobs(tmp_path)
    sha256 = await blobs.put(b"content")
    monkeypatch.setattr(blobs_module, "_sync", full)
    with pytest.raises(StorageFullError):
        await blobs.settle([sha256])


# Redis.


async def test_a_damaged_blob_in_redis_is_never_returned(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    blobs = RedisBlobs(redis, keys.name)
    sha256 = await blobs.put(b"content")
    await redis.set(keys.blob(sha256), b"other", keepttl=True)
    with pytest.raises(KeyError):
        await blobs.get(sha256)
    assert await blobs.put(b"content") == sha256
    assert await blobs.get(sha256) == b"content"


async def test_a_blob_in_redis_stays_while_a_task_needs_it_and_expires_after(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    blobs = RedisBlobs(redis, keys.name)
    sha256 = await blobs.put(b"content")
    assert 0 < await redis.ttl(keys.blob(sha256)) <= QueueLimits().blob_ttl_s
    for name in ("one", "two"):
        await queue.enqueue(picture_task(name, sha256))
    assert await redis.ttl(keys.blob(sha256)) == -1
    await blobs.put(b"content")
    assert await redis.ttl(keys.blob(sha256)) == -1
    leases = await queue.claim("w", 2, PLENTY)
    await queue.finish([answer(leases[0])])
    assert await redis.ttl(keys.blob(sha256)) == -1
    await queue.finish([answer(leases[1])])
    assert 0 < await redis.ttl(keys.blob(sha256)) <= QueueLimits().blob_ttl_s


async def test_a_server_without_memory_refuses_pictures_and_keeps_nothing(
    tmp_path: Path,
) -> None:
    with EmbeddedValkey(tmp_path, maxmemory_mb=8) as server:
        redis = connect(server.url)
        await RedisQueue(redis).start()
        blobs = RedisBlobs(redis)
        stored: list[str] = []
        with pytest.raises(StorageFullError):
            await _fill(blobs, 500_000, stored)
        assert 0 < len(stored) < 20
        assert await redis.keys("*blob:*") != []
        assert len(await redis.keys("*blob:*")) == len(stored)
        assert len(await blobs.get(stored[0])) == 500_000
        await redis.aclose()


# S3.


async def test_a_damaged_object_is_never_returned(s3: S3Server) -> None:
    blobs = S3Blobs(s3.bucket())
    sha256 = await blobs.put(b"content")
    obstore.put(blobs._store, f"{sha256[:2]}/{sha256}", b"other")
    with pytest.raises(KeyError):
        await blobs.get(sha256)
    assert await blobs.put(b"content") == sha256
    assert await blobs.get(sha256) == b"content"


async def test_an_object_that_is_there_is_sent_again_only_to_renew_it(s3: S3Server) -> None:
    kept, renewed = S3Blobs(s3.bucket()), S3Blobs(s3.bucket(), renew_s=0)
    sha256 = await kept.put(os.urandom(100))
    content = await kept.get(sha256)
    before = await _modified(kept, sha256)
    await asyncio.sleep(1.1)  # the server's times are whole seconds
    await kept.put(content)
    assert await _modified(kept, sha256) == before
    await renewed.put(content)
    assert await _modified(kept, sha256) > before


async def _modified(blobs: S3Blobs, sha256: str) -> Any:
    return (await obstore.head_async(blobs._store, f"{sha256[:2]}/{sha256}"))["last_modified"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"secret": "wrong"}, "SignatureDoesNotMatch"),
        ({"endpoint": "http://127.0.0.1:1"}, "error sending request"),
    ],
)
async def test_a_bucket_that_cannot_be_used_is_refused_at_start(
    s3: S3Server, change: dict[str, str], says: str
) -> None:
    with pytest.raises(BlobStoreSetupError, match=says):
        await S3Blobs(replace(s3.bucket(), **change)).verify()


def test_an_endpoint_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="http"):
        Bucket("pictures", endpoint="nonsense")


async def test_a_bucket_that_may_only_be_read_is_refused_at_start_and_serves_readers(
    s3: S3Server,
) -> None:
    reader, writer = S3Blobs(s3.bucket(who="reader")), S3Blobs(s3.bucket())
    await writer.verify()
    with pytest.raises(BlobStoreSetupError, match="AccessDenied"):
        await reader.verify()
    content = os.urandom(100)
    assert await reader.get(await writer.put(content)) == content
    with pytest.raises(QueueUnavailableError, match="AccessDenied"):
        await reader.put(os.urandom(100))


async def test_a_bucket_without_room_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    server = S3Server(tmp_path)
    with server.running():
        blobs = S3Blobs(server.bucket())
        stored: list[str] = []
        with pytest.raises((QueueUnavailableError, StorageFullError)):
            await _fill(blobs, 4_000_000, stored)
        assert stored
        found = [name async for batch in blobs.old(-60) for name in batch]
        assert sorted(found) == sorted(stored)
        assert len(await blobs.get(stored[-1])) == 4_000_000


# The sweep.


@pytest.fixture(params=["folder", "s3"])
async def swept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "folder":
        yield FolderBlobs(tmp_path)
        return
    server: S3Server = request.getfixturevalue("s3")
    yield S3Blobs(server.bucket(prefix=tmp_path.name))


async def test_a_sweep_takes_what_nobody_needs(
    queue: RedisQueue, redis: Redis, keys: Keys, swept: Any
) -> None:
    claims = RedisClaims(redis, keys.name)
    needed, orphan, held = [await swept.put(os.urandom(50)) for _ in range(3)]
    await queue.enqueue(picture_task("task", needed))
    await claims.hold([held], Tenant("default"))
    assert await sweep_blobs(swept, claims, 3600) == 0
    assert await sweep_blobs(swept, claims, -60) == 1
    with pytest.raises(KeyError):
        await swept.get(orphan)
    for sha256 in (needed, held):
        await swept.get(sha256)


async def test_what_a_killed_sweep_left_is_found_by_readers_and_put_back_or_removed(
    queue: RedisQueue, redis: Redis, keys: Keys, swept: Any
) -> None:
    claims = RedisClaims(redis, keys.name)
    contents = [os.urandom(50) for _ in range(3)]
    needed, unread, orphan = [await swept.put(content) for content in contents]
    for sha256 in (needed, unread, orphan):
        assert await swept.set_aside(sha256)
    for name, sha256 in (("one", needed), ("two", unread)):
        await queue.enqueue(picture_task(name, sha256))
    assert await swept.get(needed) == contents[0]
    assert await sweep_blobs(swept, claims, 3600) == 1
    assert [name async for batch in swept.aside() for name in batch] == []
    assert await swept.get(unread) == contents[1]
    with pytest.raises(KeyError):
        await swept.get(orphan)


async def test_a_picture_stored_while_a_sweep_is_stopped_in_the_middle_is_safe(
    queue: RedisQueue, redis: Redis, keys: Keys, swept: Any
) -> None:
    claims = RedisClaims(redis, keys.name)
    content = os.urandom(50)
    sha256 = await swept.put(content)
    name = await swept.set_aside(sha256)
    assert await claims.unneeded([sha256]) == {sha256}
    # The sweep has been told that nobody needs it; now somebody does.
    await HeldBlobs(swept, claims).put(content)
    await queue.enqueue(replace(picture_task("task", sha256), held=True))
    await swept.discard(name)
    assert await swept.get(sha256) == content


async def test_a_claim_that_ran_out_is_refused_rather_than_enqueued_without_its_picture(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    new = replace(picture_task("task", "0" * 64), held=True)
    with pytest.raises(PicturesNotHeldError):
        await queue.enqueue(new)
    await RedisClaims(redis, keys.name).hold(["0" * 64], Tenant("default"))
    await queue.enqueue(new)
    holds = keys.prefix + KEY_NAMES["holds"]
    assert await redis.pttl(holds) > 0
    await redis.delete(holds)
    await queue.enqueue(replace(picture_task("second", "0" * 64), held=True))
