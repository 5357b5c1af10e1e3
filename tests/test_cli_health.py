"""``forebay health`` as cron runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from forebay import health_report
from forebay.admission.pool import DecoderPool, PoolLimits
from forebay.api.services import DoorSettings
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from tests.api.door import Door, eventually, open_door, working

FIELDS = {
    "timestamp",
    "gpu_load",
    "gpu_memory_used",
    "cpu_percent",
    "memory_used_percent",
    "service_healthy",
}


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        client = connect(server.url)
        yield client
        await client.aclose()


@pytest.fixture
async def door(redis: Redis, tmp_path: Path) -> AsyncIterator[Door]:
    settings = DoorSettings(health_timeout_s=5)
    async with (
        DecoderPool(PoolLimits(processes=1)) as decoders,
        open_door(redis, tmp_path / "blobs", decoders, settings=settings) as door,
    ):
        yield door


async def health(url: str, *options: str) -> tuple[int, str]:
    """Return the command's exit status, and what it printed."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "forebay", "health", "--url", url, *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = await asyncio.to_thread(run)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


async def test_a_model_that_answers_is_healthy_and_one_that_is_gone_is_not(door: Door) -> None:
    async with working(door):
        await eventually(door.queue.workers)
        status, shown = await health(door.url, "--json")
        found = json.loads(shown)
        assert (status, found["service_healthy"]) == (0, True)
        assert set(found) >= FIELDS
        assert datetime.fromisoformat(found["timestamp"]).tzinfo is not None
        assert 0 < found["memory_used_percent"] <= 100
    door.services.probed._stale_at = 0  # a moment later
    await door.queue.heartbeat("fake", [], serving=False)
    status, shown = await health(door.url, "--json")
    found = json.loads(shown)
    assert (status, found["service_healthy"], found["reason"]) == (1, False, "not_ready")


@pytest.mark.parametrize("options", [("--json",), ()], ids=["json", "for people"])
async def test_a_server_that_is_not_there_is_not_healthy(options: tuple[str, ...]) -> None:
    status, shown = await health("http://127.0.0.1:9", *options)
    assert status == 1
    assert "ConnectError" in shown


DRIVERS: list[tuple[str, Any]] = [
    ("printf '37, 5120\\n81, 900\\n'", (81.0, 5120.0)),
    ("printf '[N/A], 5120\\n'", (None, None)),
    ("exit 9", (None, None)),
    ("true", (None, None)),
]


@pytest.mark.parametrize(("script", "figures"), DRIVERS)
def test_what_the_driver_says_of_the_gpus(
    script: str, figures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert health_report.gpu_figures() == figures
