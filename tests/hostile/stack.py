"""What is attacked: a whole ``forebay serve``, and what must still be true of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psutil

BODY_TIMEOUT_S = 2.0
FETCH_TIMEOUT_S = 2.0
_LOOK_S = 0.1


def settings(outside_port: int) -> dict[str, str]:
    """Return the variables of the stack: URLs are fetched, from one port of this machine too."""
    return {
        "FOREBAY_FETCH_URLS": "true",
        "FOREBAY_FETCH_ALLOW": "127.0.0.1",
        "FOREBAY_FETCH_PORTS": str(outside_port),
        "FOREBAY_FETCH_TIMEOUT_S": str(FETCH_TIMEOUT_S),
        "FOREBAY_FETCH_MAX_BYTES": str(2**20),
        "FOREBAY_BODY_TIMEOUT_S": str(BODY_TIMEOUT_S),
        "FOREBAY_MAX_INFLIGHT_BYTES": str(256 * 2**20),
        "FOREBAY_LOG_LEVEL": "debug",
    }


@dataclass
class Memory:
    """The most that each kind of process had resident, in bytes."""

    most: dict[str, int] = field(default_factory=dict)
    _done: Event = field(default_factory=Event)

    def look(self, root: psutil.Process) -> None:
        for one in root.children(recursive=True):
            try:
                name, size = _role(one.cmdline()), one.memory_info().rss
            except psutil.Error:
                continue
            self.most[name] = max(size, self.most.get(name, 0))


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """Look at the memory of a process's children, ten times a second, until the block ends."""
    memory, root = Memory(), psutil.Process(pid)

    def look() -> None:
        while not memory._done.wait(_LOOK_S):
            memory.look(root)

    thread = Thread(target=look)
    thread.start()
    try:
        yield memory
    finally:
        memory._done.set()
        thread.join()


def processes(pid: int) -> dict[str, list[int]]:
    """Return the pids of each kind among a process's children."""
    found: dict[str, list[int]] = {}
    for one in psutil.Process(pid).children(recursive=True):
        try:
            found.setdefault(_role(one.cmdline()), []).append(one.pid)
        except psutil.Error:
            continue
    return {role: sorted(pids) for role, pids in sorted(found.items())}


def _role(command: list[str]) -> str:
    line = " ".join(command)
    roles = {"admission.decoder": "decoder", " api": "api", " worker": "worker", "valkey": "queue"}
    return next((role for mark, role in roles.items() if mark in line), "other")


def log_holds(log: Path, secrets: list[bytes]) -> list[str]:
    """Return the lines of a log that hold what no log may hold."""
    lines = log.read_bytes().splitlines()
    guilty = [line for line in lines if any(secret in line for secret in secrets)]
    return [line.decode("utf-8", "replace")[:300] for line in guilty]
