"""A worker's sign of life on its own machine: a small file, rewritten about every second."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import psutil


class Phase(StrEnum):
    """Where a worker is in its own life. ``WAITING``: for its engine, which cannot answer now.

    ``DRAINED``: it holds nothing and takes nothing, until it is told to again.
    """

    LOADING = "loading"
    WAITING = "waiting"
    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker says of itself. ``peak_bytes``: most resident memory since its start.

    ``memory_bytes``, ``gpu_memory_bytes``: what it takes now; of a GPU what its engine reserved.
    ``still_s``: for how long its engine has had work and has not moved.
    """

    name: str
    pid: int
    phase: Phase
    model: str
    held: int = 0
    answered: int = 0
    failed: int = 0
    peak_bytes: int = 0
    still_s: float = 0.0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0


def status_path(folder: Path, name: str) -> Path:
    """Return the status file of the worker ``name`` in a stack's run folder."""
    return folder / f"{name}.status.json"


def write_status(folder: Path, status: WorkerStatus) -> None:
    """Replace the worker's status file; a reader sees the old one or the new one, whole."""
    path = status_path(folder, status.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(asdict(status)), encoding="utf-8")
    partial.replace(path)


def read_status(folder: Path, name: str) -> WorkerStatus | None:
    """Return a worker's last sign of life, or None when it has given none that can be read."""
    try:
        raw = json.loads(status_path(folder, name).read_text(encoding="utf-8"))
        return WorkerStatus(**{**raw, "phase": Phase(raw["phase"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def touch_status(folder: Path, name: str) -> None:
    """Renew an old status file where no new one can be written: a full disk is no silence."""
    with contextlib.suppress(OSError):
        os.utime(status_path(folder, name))


def status_mark(folder: Path, name: str) -> int | None:
    """Return what changes with every sign of life, None where there was none."""
    try:
        return status_path(folder, name).stat().st_mtime_ns
    except OSError:
        return None


def stalled_workers(folder: Path, limit_s: float) -> list[str]:
    """Return the living workers of this machine that hold work and have not moved for so long.

    Idle ones, ended ones, and those that still load their model are none of them.
    """
    return [name for name in _names(folder) if _stalled(folder, name, limit_s)]


def living_workers(folder: Path) -> list[str]:
    """Return the workers of this machine whose processes live, well or not."""
    found = {name: read_status(folder, name) for name in _names(folder)}
    return [name for name, status in found.items() if status is not None and _lives(status.pid)]


def _names(folder: Path) -> list[str]:
    suffix = ".status.json"
    return sorted(path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))


def _stalled(folder: Path, name: str, limit_s: float) -> bool:
    status, mark = read_status(folder, name), status_mark(folder, name)
    if status is None or mark is None or status.held == 0 or status.phase is Phase.LOADING:
        return False
    silent_s = max(0.0, time.time() - mark / 1e9)
    return status.still_s + silent_s > limit_s and _lives(status.pid)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def memory_bytes() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes() -> int:
    """Return the most resident memory this process has held, in bytes.

    Linux: ``VmHWM``, which starts anew at exec; ``ru_maxrss`` would count the parent's before it.
    """
    try:
        with Path("/proc/self/status").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # no /proc: macOS
    return _max_rss_bytes()


def _max_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
