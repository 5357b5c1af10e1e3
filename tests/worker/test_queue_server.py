"""The private server in the supervisor's hands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from forebay.config import Settings
from forebay.queue.connection import connect
from forebay.worker.queue_server import QueueServer


async def test_a_stop_leaves_no_server_of_a_start_that_was_cancelled(tmp_path: Path) -> None:
    queue = QueueServer(Settings.model_validate({"data_dir": tmp_path}))
    start = asyncio.create_task(queue.start())
    await asyncio.sleep(0)  # it is on its thread now
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await queue.stop()
    await asyncio.sleep(0.5)
    assert not [each for each in psutil.process_iter() if _serves(each, tmp_path)]


def _serves(process: psutil.Process, folder: Path) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "valkey" in command and str(folder) in command


@pytest.mark.parametrize(("fsync", "of_the_server"), [("everysec", "no"), ("always", "always")])
async def test_who_syncs_follows_the_setting(
    tmp_path: Path, fsync: str, of_the_server: str
) -> None:
    queue = QueueServer(Settings.model_validate({"data_dir": tmp_path, "queue_fsync": fsync}))
    await queue.start()
    client = connect(queue.url)
    try:
        assert await client.config_get("appendfsync") == {"appendfsync": of_the_server}
    finally:
        await client.aclose()
        await queue.stop()


async def test_a_server_that_hangs_is_ended_and_another_has_all_that_it_had(
    tmp_path: Path,
) -> None:
    queue = QueueServer(Settings.model_validate({"data_dir": tmp_path}), silent_s=3)
    await queue.start()
    guard = asyncio.create_task(queue.keep_alive())
    client = connect(queue.url)
    try:
        await client.set("kept", "1")
        hung = queue.pid
        assert hung is not None
        psutil.Process(hung).suspend()
        async with asyncio.timeout(60):
            while queue.pid == hung:  # noqa: ASYNC110 - it is watched from outside
                await asyncio.sleep(0.1)
            while not await _has(client, "kept"):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)
        assert not psutil.pid_exists(hung)
        assert not guard.done()
    finally:
        guard.cancel()
        await client.aclose()
        await queue.stop()


async def _has(client: Redis, name: str) -> bool:
    try:
        return await client.get(name) == "1"
    except RedisError:
        return False
