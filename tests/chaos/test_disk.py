"""Durable to a process crash: also while the disk is slow, and after it was broken or full."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from structlog.testing import capture_logs

from forebay.queue import disk_sync
from forebay.queue.embedded import EmbeddedValkey
from tests.chaos.disk import Disk

pytestmark = pytest.mark.skipif(not Disk.can_be_faked(), reason="needs a C compiler, and Linux")

PATIENCE_S = 30.0
WRITES_FOR_S = 8.0  # several syncs, the first of three files


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk of the servers that start from now on, and of our own syncs."""
    disk = Disk(tmp_path / "disk")
    for name, value in disk.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(disk_sync, "_sync_data", disk.met_by(disk_sync._sync_data))
    return disk


@pytest.fixture
def server(disk: Disk, tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "queue") as server:
        yield server
        disk.becomes()


@pytest.fixture
def lines() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as lines:
        yield lines


def client_of(server: EmbeddedValkey, within_s: float = PATIENCE_S) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(server.socket), socket_timeout=within_s, retry=Retry(NoBackoff(), 0)
    )


def until(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(0.02)


def is_taken(client: redis.Redis) -> bool:
    """Write once; return whether that was acknowledged."""
    try:
        client.incr("acknowledged")
    except redis.RedisError:
        return False
    return True


def can_be_read(client: redis.Redis) -> bool:
    try:
        return client.get("acknowledged") is not None
    except redis.RedisError:
        return False


def how_it_writes(server: EmbeddedValkey) -> dict[str, Any]:
    with client_of(server) as client:
        return dict(client.info("persistence"))


def after_a_kill(server: EmbeddedValkey) -> int:
    """Kill the server and start it again; return how many writes it still knows."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.alive())
    server.start()
    with client_of(server) as client:
        return int(client.get("acknowledged") or 0)


def test_what_was_acknowledged_outlives_the_kill_of_a_server_with_a_slow_disk(
    disk: Disk, server: EmbeddedValkey
) -> None:
    disk.becomes("slow")
    give_up = time.monotonic() + WRITES_FOR_S
    acknowledged = held_back = 0
    with client_of(server) as client:
        while time.monotonic() < give_up and not held_back:
            acknowledged = int(client.incr("acknowledged"))
            held_back = client.info("persistence")["aof_buffer_length"]
    assert after_a_kill(server) == acknowledged
    assert not held_back
    assert server.disk.slow, "the disk was not slow"


def test_a_disk_that_was_broken_leaves_no_gap(
    disk: Disk, server: EmbeddedValkey, lines: list[MutableMapping[str, Any]]
) -> None:
    disk.becomes("broken")
    acknowledged = 0
    with client_of(server, within_s=0.5) as client:
        while not server.disk.failed:
            acknowledged += is_taken(client)
            time.sleep(0.02)
        while is_taken(client):
            acknowledged += 1
        until(lambda: can_be_read(client))
        disk.becomes()
        until(lambda: is_taken(client))
    assert _told(lines, "queue_disk_failed")
    until(lambda: _told(lines, "queue_written_anew"))
    # Tries that were given up may have been acted on when the pause ended: that is no loss.
    assert after_a_kill(server) >= acknowledged + 1
    assert not how_it_writes(server)["aof_rewrite_in_progress"]
    assert not (server.folder / "appendonlydir" / "appendonly.aof.1.base.rdb").exists()


def test_a_server_that_could_not_sync_a_file_as_it_closed_it_takes_writes_again(
    disk: Disk, server: EmbeddedValkey, lines: list[MutableMapping[str, Any]]
) -> None:
    with client_of(server) as client:
        assert is_taken(client)
        disk.becomes("broken_at_close")
        client.bgrewriteaof()
        until(lambda: how_it_writes(server)["aof_last_write_status"] == "err")
        disk.becomes()
        until(lambda: is_taken(client))
    assert _told(lines, "queue_disk_failed")


def test_a_full_disk_is_told_of_and_loses_nothing_once_there_is_space(
    disk: Disk, server: EmbeddedValkey, lines: list[MutableMapping[str, Any]]
) -> None:
    with client_of(server) as client:
        acknowledged = int(is_taken(client))
        disk.becomes("full")
        while is_taken(client):
            acknowledged += 1
        until(lambda: _told(lines, "queue_disk_full"))
        assert not is_taken(client)
        disk.becomes()
        until(lambda: is_taken(client))
        assert int(client.get("acknowledged") or 0) == acknowledged + 1
    until(lambda: _told(lines, "queue_disk_has_space"))
    assert after_a_kill(server) == acknowledged + 1


def _told(lines: list[MutableMapping[str, Any]], event: str) -> bool:
    return any(line["event"] == event for line in lines)
