"""The private server in the supervisor's hands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

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
