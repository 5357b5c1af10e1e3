"""Backup and restore of the private queue: its snapshot, and the pictures that it refers to."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import redis

from forebay.core.lifecycle import State
from forebay.queue.archive import (
    SNAPSHOT,
    Manifest,
    extract,
    reading,
    sha256_of,
    write_archive,
)
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.errors import BackupError
from forebay.queue.schema import KEY_NAMES

SAVE_S: Final = 600.0
POLL_S: Final = 0.05
DUMP: Final = "dump.rdb"
PICTURE: Final = re.compile(r'"sha256":\s*"([0-9a-f]{64})"')
SCAN: Final = 1000


def back_up(queue_dir: Path, blob_dir: Path, file: Path) -> tuple[Manifest, int]:
    """Write a backup of the queue as it is at one moment; return its manifest and its bytes.

    It may run, or not. The snapshot is loaded into a server of its own before it is kept: what
    cannot be read back is no backup, and that server says which pictures belong to it.

    Raises BackupError, or another QueueSetupError.
    """
    if not queue_dir.is_dir():
        raise BackupError(f"There is no queue in {queue_dir}.", mend="Name its --data-dir.")
    with _alone(queue_dir), tempfile.TemporaryDirectory(dir=queue_dir, prefix="backup-") as made:
        scratch = Path(made)
        with _server_of(queue_dir) as server:
            _save(server)
            (queue_dir / DUMP).replace(scratch / DUMP)
        tasks, pictures = _look_into(scratch)
        sources = {SNAPSHOT: scratch / DUMP}
        files = {SNAPSHOT: sha256_of(scratch / DUMP)}
        missing = []
        for sha256 in sorted(pictures):
            path = blob_dir / sha256[:2] / sha256
            if path.is_file() and sha256_of(path) == sha256:
                sources[f"blobs/{sha256}"], files[f"blobs/{sha256}"] = path, sha256
            else:
                missing.append(sha256)
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(made_at, version("forebay"), tasks, files, tuple(missing))
        return manifest, write_archive(file, manifest, sources)


@contextmanager
def _alone(queue_dir: Path) -> Iterator[None]:
    """One backup of a folder at a time: the server has one snapshot file."""
    taken = BackupError(f"Another backup of {queue_dir} is under way.", mend="Wait for its end.")
    with _locked(queue_dir / "backup.lock", taken):
        yield


@contextmanager
def _locked(path: Path, taken: BackupError) -> Iterator[None]:
    """Hold the lock of a file, made when it is not there; raise ``taken`` if another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise taken from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _server_of(queue_dir: Path) -> Iterator[redis.Redis]:
    """Return a client of the folder's server, which is started for the block where none runs."""
    server = EmbeddedValkey(queue_dir)
    client = redis.Redis(unix_socket_path=str(server.socket), socket_timeout=30)
    with client:
        try:
            client.ping()
        except redis.ConnectionError:
            with server:
                yield client
        else:
            yield client


def _save(client: redis.Redis) -> None:
    """Have the server write its snapshot. Raises BackupError."""
    until = time.monotonic() + SAVE_S
    while _persistence(client)["rdb_bgsave_in_progress"] and time.monotonic() < until:
        time.sleep(POLL_S)
    before = _persistence(client)["rdb_saves"]
    client.bgsave(schedule=True)
    time.sleep(POLL_S)
    while time.monotonic() < until:
        now = _persistence(client)
        if now["rdb_saves"] > before and not now["rdb_bgsave_in_progress"]:  # counted as it begins
            if now["rdb_last_bgsave_status"] == "ok":
                return
            break
        time.sleep(POLL_S)
    raise BackupError(
        "The queue's server could not write its snapshot.",
        mend="Free disk and memory (it needs about as much disk as the queue has data); its log "
        "says more.",
    )


def _persistence(client: redis.Redis) -> dict[str, Any]:
    return dict(client.info("persistence"))


def _look_into(folder: Path) -> tuple[int, set[str]]:
    """Load a folder's snapshot; return how many tasks have not ended, and their pictures."""
    tasks = 0
    pictures: set[str] = set()
    with (
        EmbeddedValkey(folder, maxmemory_mb=0, from_snapshot=True) as server,
        redis.Redis(unix_socket_path=str(server.socket), decode_responses=True) as client,
    ):
        for key in client.scan_iter(match="{fb:*}:" + KEY_NAMES["task"] + "*", count=SCAN):
            state = client.hget(key, "state")
            if state is None or (State(state).final and State(state) is not State.DEAD):
                continue
            tasks += State(state) is not State.DEAD
            prefix, _, task_id = key.partition("}:" + KEY_NAMES["task"])
            request = client.get(f"{prefix}}}:{KEY_NAMES['body']}{task_id}")
            pictures.update(PICTURE.findall(request or ""))
    return tasks, pictures


def restore(file: Path, queue_dir: Path, blob_dir: Path, *, force: bool = False) -> Manifest:
    """Bring a backup back into ``queue_dir``; return its manifest.

    The file is checked whole first. A queue that is there is refused, or, with ``force``, set
    aside beside the new one. Raises BackupError, or another QueueSetupError.
    """
    with reading(file) as (manifest, tar), _taken(queue_dir, force=force):
        queue_dir.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=queue_dir.parent, prefix=".restore-"))
        try:
            extract(tar, SNAPSHOT, staging / DUMP)
            _make_durable(staging)
            for name in manifest.files:
                if name != SNAPSHOT:
                    _bring_back(tar, name, blob_dir)
            if queue_dir.exists():
                queue_dir.replace(_aside(queue_dir))
            staging.replace(queue_dir)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return manifest


@contextmanager
def _taken(queue_dir: Path, *, force: bool) -> Iterator[None]:
    """Hold the folder's lock, so that no server starts on it. Raises BackupError."""
    if not queue_dir.exists() or not any(queue_dir.iterdir()):
        yield
        return
    running = BackupError(f"The queue in {queue_dir} is running.", mend="Stop that Forebay first.")
    with _locked(queue_dir / "lock", running):
        if not force:
            raise BackupError(
                f"There is a queue in {queue_dir} already.",
                mend="Choose another --data-dir, or --force to set that one aside.",
            )
        yield


def _make_durable(folder: Path) -> None:
    """Turn a folder's snapshot into the append-only file that a start reads.

    A server with an append-only file ignores any snapshot beside it: left alone, the restored
    queue would be empty.
    """
    with (
        EmbeddedValkey(folder, maxmemory_mb=0, from_snapshot=True) as server,
        redis.Redis(unix_socket_path=str(server.socket)) as client,
    ):
        client.config_set("appendonly", "yes")
        until = time.monotonic() + SAVE_S
        while not _is_written(_persistence(client)):
            if time.monotonic() > until:
                raise BackupError(
                    "The restored queue could not be written down.", mend="Free disk and memory."
                )
            time.sleep(POLL_S)
    for name in (DUMP, "valkey.log", "valkey.conf", "lock"):
        (folder / name).unlink(missing_ok=True)


def _is_written(about: dict[str, Any]) -> bool:
    waits = about["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"]
    return bool(about["aof_enabled"]) and not waits and about["aof_last_bgrewrite_status"] == "ok"


def _bring_back(tar: Any, name: str, blob_dir: Path) -> None:
    sha256 = name.removeprefix("blobs/")
    home = blob_dir / sha256[:2]
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = home / f".new-{sha256}.{os.getpid()}"
    try:
        extract(tar, name, partial)
        partial.chmod(0o600)
        partial.replace(home / sha256)
    finally:
        partial.unlink(missing_ok=True)


def _aside(queue_dir: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return queue_dir.with_name(f"{queue_dir.name}.before-{stamp}")
