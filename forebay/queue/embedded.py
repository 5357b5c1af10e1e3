"""The private Valkey: a server process on a folder of its own, reached by a Unix socket only."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Literal, Self

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from forebay.queue.binaries import find_server_binary
from forebay.queue.disk_mend import Mending
from forebay.queue.disk_sync import DiskStatus, DiskSync
from forebay.queue.errors import DataFolderLockedError, ServerStartError

log = structlog.get_logger(__name__)

LONGEST_SOCKET_PATH: Final = 100
"""Bytes; the system's limit for a Unix socket is 104 on macOS and 108 on Linux."""

LOG_KEEP_BYTES: Final = 10_000_000
POLL_S: Final = 0.01

CONFIG: Final = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
dir "{folder}"
daemonize no
logfile "{log}"
databases 1
maxmemory {maxmemory}
maxmemory-policy noeviction
appendonly {appendonly}
appendfsync {fsync}
save ""
# A task's hash holds its request, and most streams are short: both stay in their compact form.
hash-max-listpack-value 4096
stream-node-max-bytes 1024
"""


class EmbeddedValkey:
    """A Valkey server that belongs to this process and to ``data_dir``.

    ``maxmemory_mb`` bounds the server; at the bound new tasks are refused and accepted ones still
    finish. ``fsync``: "everysec" puts a second of acknowledged work, and the time of a sync, at
    risk on power loss and none on a crash of processes (the syncs are ours, see ``DiskSync``);
    "always" closes that gap and is slower.
    ``from_snapshot``: begin with the folder's dump.rdb and write nothing down, to look into it.

    Not for an event loop: methods block (start 0.1 s, stop up to ``stop_s``). The lock on the
    folder is shared with the server process, so it holds as long as either lives.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        maxmemory_mb: int = 512,
        fsync: Literal["everysec", "always"] = "everysec",
        start_s: float = 60.0,
        stop_s: float = 15.0,
        from_snapshot: bool = False,
    ) -> None:
        self.folder = data_dir.absolute()
        self.pid: int | None = None
        self._maxmemory_mb = maxmemory_mb
        self._fsync = fsync
        self._start_s = start_s
        self._stop_s = stop_s
        self._from_snapshot = from_snapshot
        self._disk: DiskSync | None = None
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """The server's socket: in the folder, or in a private one where that path is too long."""
        path = self.folder / "valkey.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        stat = self.folder.stat()
        name = f"forebay-{os.getuid()}-{stat.st_dev:x}-{stat.st_ino:x}"
        return Path(tempfile.gettempdir()) / name / "valkey.sock"

    @property
    def disk(self) -> DiskStatus:
        """How the syncs went so far; where the server does them, there are none of ours."""
        return self._disk.status if self._disk else DiskStatus()

    @property
    def url(self) -> str:
        """What ``connect`` takes."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start the server, or start it again if it died; return when it answers.

        Raises DataFolderLockedError, ServerBinaryMissingError or ServerStartError.
        """
        if self.alive():
            return
        self._prepare_folders()
        if self._lock is None:
            self._lock = self._take_lock()
        try:
            self._launch()
            self._await_ready()
            self._keep_synced()
        except BaseException:
            self.stop()
            raise

    def alive(self) -> bool:
        """Return whether the server process runs."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Return whether the server says anything, be it a refusal; wait two seconds at most."""
        try:
            with self._client() as client:
                client.ping()
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        except redis.RedisError:
            return True
        return True

    def kill(self) -> None:
        """End a server that does not answer; what it has answered is in its file."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Save and end the server, by force after ``stop_s``; give the folder free."""
        if self._process is not None:
            self._end_process(self._process)
            self._process = None
            self.pid = None
        if self._disk is not None:
            self._disk.stop()  # the server has synced its files as it ended
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _prepare_folders(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        home = self.socket.parent
        if home != self.folder:
            home.mkdir(exist_ok=True, mode=0o700)
            if home.stat().st_uid != os.getuid():
                raise ServerStartError(
                    f"{home} belongs to another user.", mend="Use a data folder of a shorter path."
                )
            home.chmod(0o700)

    def _take_lock(self) -> int:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try_lock(lock):
                self._evict_orphan(lock)
            os.ftruncate(lock, 0)
            os.pwrite(lock, json.dumps({"owner": os.getpid(), "home": _home()}).encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _evict_orphan(self, lock: int) -> None:
        """End a server whose owner was killed, so that its folder can be taken over.

        The orphan saves what it has; a living owner is left alone.
        """
        owner = _owner(lock)
        if owner is None or owner.get("home") != _home() or _process_exists(owner["owner"]):
            raise DataFolderLockedError(
                f"{self.folder} is in use: {owner}.",
                mend="Stop that Forebay first, or give this one another data_dir.",
            )
        log.warning("orphaned_queue_server", folder=str(self.folder), owner=owner)
        until = time.monotonic() + self._stop_s
        while not _try_lock(lock):
            if time.monotonic() > until:
                raise DataFolderLockedError(
                    f"A server left by {owner} still works on {self.folder}.",
                    mend=f"End it: fuser -k {self.folder / 'lock'}",
                )
            self._ask_to_save_and_end()
            time.sleep(POLL_S)

    def _launch(self) -> None:
        assert self._lock is not None
        binary = find_server_binary()
        log_file = self.folder / "valkey.log"
        if log_file.exists() and log_file.stat().st_size > LOG_KEEP_BYTES:
            log_file.replace(log_file.with_suffix(".log.1"))
        config = self.folder / "valkey.conf"
        config.write_text(
            CONFIG.format(
                socket=self.socket,
                folder=self.folder,
                log=log_file,
                maxmemory=self._maxmemory_mb * 2**20,
                fsync="always" if self._fsync == "always" else "no",
                appendonly="no" if self._from_snapshot else "yes",
            ),
            encoding="utf-8",
        )
        # A session of its own: Ctrl-C in the terminal must reach the server last, through stop().
        self._process = subprocess.Popen(  # noqa: S603 - the program found above, our own file
            [binary, config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        self.pid = self._process.pid

    def _await_ready(self) -> None:
        """Wait until the server answers; while it reads its files, as long as it gets on."""
        until = time.monotonic() + self._start_s
        trouble: object = None
        read = 0
        while self.alive() and time.monotonic() < until:
            try:
                with self._client() as client:
                    told = client.info("server", "persistence")
            except redis.RedisError as error:
                trouble = error
            else:
                # A stale socket cannot answer, another server could: the pid tells.
                if told["process_id"] == self.pid and not told["loading"]:
                    return
                now_read = told.get("loading_loaded_bytes", 0)
                trouble = f"it has read {now_read} bytes of its files"
                if now_read > read:
                    read, until = now_read, time.monotonic() + self._start_s
            time.sleep(POLL_S)
        state = "runs but does not answer" if self.alive() else "ended at once"
        raise ServerStartError(
            f"The queue's private server {state}: {trouble}. It wrote: {self._log_tail()}",
            mend=f"Look at {self.folder / 'valkey.log'}, free disk and memory.",
        )

    def _log_tail(self) -> str:
        log_file = self.folder / "valkey.log"
        if not log_file.exists():
            return "nothing"
        return " | ".join(log_file.read_text("utf-8", "replace").splitlines()[-5:])

    def _end_process(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + self._stop_s
        while process.poll() is None and time.monotonic() < until:
            self._ask_to_save_and_end()
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue  # it refuses while it rewrites its file: ask again
        if process.poll() is None:
            log.error("queue_server_killed", pid=process.pid, waited_s=self._stop_s)
            process.kill()
            process.wait()

    def _ask_to_save_and_end(self) -> None:
        try:
            with self._client() as client:
                client.shutdown()
        except redis.RedisError as error:
            log.debug("queue_server_shutdown", error=str(error))

    def _keep_synced(self) -> None:
        if self._fsync == "always" or self._from_snapshot:
            return
        if self._disk is None:
            self._disk = DiskSync(self.folder / "appendonlydir", Mending(self._client()))
        self._disk.start()

    def _client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=2.0,
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), retries=0),
        )


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(lock: int) -> dict[str, Any] | None:
    try:
        owner = json.loads(os.pread(lock, 1000, 0))
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and isinstance(owner.get("owner"), int) else None


def _home() -> str:
    """Where our process ids mean something: another container's may be nobody's here."""
    namespace = Path("/proc/self/ns/pid")
    return str(namespace.readlink()) if namespace.is_symlink() else platform.node()


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
