"""What the private server appends is brought to the disk, by us: on a real server's files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as sync_redis

from forebay.queue import disk_sync
from forebay.queue.disk_mend import Mending
from forebay.queue.disk_sync import DiskSync
from forebay.queue.embedded import EmbeddedValkey

PATIENCE_S = 30.0
EVERY_S = 0.05


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of what is synced of this test's, in order; the syncs come often."""
    names: list[str] = []
    really = os.fsync

    def noting(descriptor: int) -> None:
        really(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_relative_to(tmp_path):
            names.append(path.name)

    monkeypatch.setattr(os, "fsync", noting)  # of folders
    monkeypatch.setattr(disk_sync, "_sync_data", noting)
    monkeypatch.setattr(disk_sync, "EVERY_S", EVERY_S)
    return names


@pytest.fixture
def server(synced: list[str], tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "queue") as server:
        yield server


def client_of(server: EmbeddedValkey) -> sync_redis.Redis:
    return sync_redis.Redis(unix_socket_path=str(server.socket), decode_responses=True)


def files_of(server: EmbeddedValkey) -> set[str]:
    return {path.name for path in (server.folder / "appendonlydir").iterdir()}


def is_of(server: EmbeddedValkey, descriptor: int) -> bool:
    with os.scandir(server.folder / "appendonlydir") as entries:
        return os.fstat(descriptor).st_ino in {entry.inode() for entry in entries}


def until(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(EVERY_S / 5)


def at_rest(synced: list[str], beats: int = 6) -> bool:
    """Whether so many beats of the sync pass without one: the first ones still have work."""
    before = len(synced)
    time.sleep(beats * EVERY_S)
    return len(synced) == before


def write_a_lot(server: EmbeddedValkey) -> None:
    with client_of(server) as client:
        for number in range(100):
            client.set(f"key{number}", "x" * 1000)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@needs_proc
def test_what_was_appended_is_synced_and_an_idle_queue_touches_no_disk(
    server: EmbeddedValkey, synced: list[str]
) -> None:
    until(lambda: "appendonlydir" in synced)
    synced.clear()
    write_a_lot(server)
    until(lambda: "appendonly.aof.1.incr.aof" in synced)
    until(lambda: at_rest(synced))


@needs_proc
def test_a_new_folder_is_synced_where_it_has_its_name(
    server: EmbeddedValkey, synced: list[str]
) -> None:
    until(lambda: "appendonlydir" in synced)
    assert {server.folder.name, server.folder.parent.name} <= set(synced)


@needs_proc
def test_the_files_of_a_rewrite_are_synced_and_their_folder(
    server: EmbeddedValkey, synced: list[str]
) -> None:
    until(lambda: "appendonlydir" in synced)
    write_a_lot(server)
    synced.clear()
    with client_of(server) as client:
        client.bgrewriteaof()
        until(lambda: "appendonly.aof.2.base.rdb" in files_of(server))
        client.set("after", "the rewrite")
        until(lambda: {"appendonly.aof.2.incr.aof", "appendonlydir"} <= set(synced))
        time.sleep(4 * EVERY_S)
        synced.clear()
        client.set("after", "that")
    until(lambda: "appendonly.aof.2.incr.aof" in synced)


@pytest.mark.parametrize("times", [1, 3])
def test_after_a_sync_that_failed_everything_is_written_anew_and_writers_wait_for_it(
    server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    fails = iter(range(times))
    well = disk_sync._sync_data

    def failing(descriptor: int) -> None:
        # other tests' servers are synced in this process too
        if is_of(server, descriptor) and next(fails, None) is not None:
            raise OSError(5, "Input/output error")
        well(descriptor)

    monkeypatch.setattr(disk_sync, "_sync_data", failing)
    write_a_lot(server)
    until(lambda: server.disk.failed == times)
    until(lambda: f"appendonly.aof.{times + 1}.base.rdb" in files_of(server))
    with client_of(server) as client:
        client.set("after", "the mend")
        assert client.dbsize() == 101
    until(lambda: server.disk.syncs > times)
    assert server.disk.failed == times


def test_a_server_that_syncs_each_write_is_left_alone(synced: list[str], tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "queue", fsync="always") as server:
        write_a_lot(server)
        time.sleep(4 * EVERY_S)
        assert server.disk.syncs == 0
        assert synced == []


def test_a_server_that_was_killed_and_started_again_is_synced_on(
    server: EmbeddedValkey, synced: list[str]
) -> None:
    assert server.pid is not None
    os.kill(server.pid, 9)
    until(lambda: not server.alive())
    server.start()
    syncs = server.disk.syncs
    write_a_lot(server)
    until(lambda: server.disk.syncs > syncs)


def test_a_disk_that_hangs_does_not_keep_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, freed = threading.Event(), threading.Event()

    def hanging(descriptor: int) -> None:
        hangs.set()
        freed.wait(PATIENCE_S)

    monkeypatch.setattr(disk_sync, "_sync_data", hanging)
    monkeypatch.setattr(disk_sync, "EVERY_S", EVERY_S)
    monkeypatch.setattr(disk_sync, "STOP_S", EVERY_S)
    (tmp_path / "file").write_text("appended")
    nobody = sync_redis.Redis(unix_socket_path=str(tmp_path / "nobody.sock"))
    sync = DiskSync(tmp_path, Mending(nobody))
    sync.start()
    assert hangs.wait(PATIENCE_S)
    sync.stop()
    assert not freed.is_set()
    freed.set()
