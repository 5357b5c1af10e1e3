"""``/v1/files`` by the unmodified ``openai`` client."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import openai
import pytest

from forebay.api.files.folder import FileFolder
from forebay.api.services import DoorSettings
from forebay.core.errors import StorageFullError
from tests.api.door import open_door
from tests.api.openai_rig import talking

CONTENT = b'{"custom_id": "1"}\n'


async def test_a_file_is_kept_found_read_and_deleted(door):
    async with talking(door) as client:
        file = await client.files.create(file=("in.jsonl", CONTENT), purpose="batch")
        assert (file.bytes, file.filename, file.purpose) == (len(CONTENT), "in.jsonl", "batch")
        assert file.expires_at - file.created_at == 30 * 86_400
        assert await client.files.retrieve(file.id) == file
        assert (await client.files.content(file.id)).read() == CONTENT
        assert (await client.files.delete(file.id)).deleted
        for gone in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError) as refused:
                await gone(file.id)
            assert refused.value.code == "file_not_found"


async def test_a_list_is_read_page_by_page(door):
    async with talking(door) as client:
        made = [
            (await client.files.create(file=(f"{at}.jsonl", CONTENT), purpose="batch")).id
            for at in range(5)
        ]
        listed = [file.id async for file in client.files.list(limit=2)]
        assert sorted(listed) == sorted(made)
        upwards = [file.id async for file in client.files.list(order="asc")]
        assert upwards == listed[::-1]
        assert [file async for file in client.files.list(purpose="batch_output")] == []


async def test_it_is_kept_for_as_long_as_asked(door):
    async with talking(door) as client:
        file = await client.files.create(
            file=("in.jsonl", CONTENT),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
    assert file.expires_at - file.created_at == 3600
    key = next(iter(await door.queue._redis.keys("*file:file-*")))
    assert 3500 < await door.queue._redis.ttl(key) <= 3600


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after"),
        ({"purpose": "batch", "expires_after[seconds]": "9"}, "expires_after"),
        ({"purpose": "batch", "surprise": "1"}, "surprise"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(door, fields, param):
    files = {"file": ("in.jsonl", CONTENT)}
    refused = await door.http.post("/v1/files", files=files, data=fields)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


async def test_a_file_over_the_limit_is_refused_and_leaves_nothing(redis, tmp_path, decoders):
    settings = DoorSettings(max_file_bytes=1000)
    async with open_door(redis, tmp_path / "blobs", decoders, settings=settings) as door:
        for size in (1001, 200_000):
            refused = await door.http.post(
                "/v1/files", files={"file": ("x", b"x" * size)}, data={"purpose": "batch"}
            )
            assert refused.status_code == 413
            assert refused.json()["error"]["code"] == "body_too_large"
    assert not list((tmp_path / "files").glob("*"))


async def test_a_file_may_be_larger_than_other_bodies(redis, tmp_path, decoders):
    settings = DoorSettings(max_body_bytes=2000, max_file_bytes=500_000)
    async with open_door(redis, tmp_path / "blobs", decoders, settings=settings) as door:
        taken = await door.http.post(
            "/v1/files", files={"file": ("x", b"x" * 400_000)}, data={"purpose": "batch"}
        )
        assert taken.status_code == 200


def test_the_folder_holds_no_more_than_its_bound(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 600)
    with source.open("rb") as content:
        (kept := tmp_path / "kept").mkdir()
        folder = FileFolder(kept, max_bytes=1000)
        assert folder.keep("file-" + "0" * 32, content) == 600
        with pytest.raises(StorageFullError):
            folder.keep("file-" + "1" * 32, content)
    assert [path.name for path in kept.iterdir()] == ["file-" + "0" * 32]


async def test_what_has_no_record_any_more_is_swept(door):
    store = door.services.files
    async with talking(door) as client:
        gone = await client.files.create(file=("a", CONTENT), purpose="batch")
        stays = await client.files.create(file=("b", CONTENT), purpose="batch")
    await door.queue._redis.delete(next(iter(await door.queue._redis.keys(f"*:{gone.id}"))))
    for one in (gone, stays):
        path = store.folder.path(one.id)
        await asyncio.to_thread(_make_old, path)
    assert await store.sweep() == 1
    assert not store.folder.path(gone.id).exists()
    assert store.folder.path(stays.id).exists()


def _make_old(path: Path) -> None:
    os.utime(path, (1, 1))
