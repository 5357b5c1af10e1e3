"""A worker's sign of life on its own machine: a small file, rewritten whole at every heartbeat."""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Phase(StrEnum):
    """Where a worker is in its own life. ``WAITING``: for its engine, which cannot answer now."""

    LOADING = "loading"
    WAITING = "waiting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker says of itself. ``peak_bytes``: most resident memory since its start."""

    name: str
    pid: int
    phase: Phase
    model: str
    held: int = 0
    answered: int = 0
    failed: int = 0
    peak_bytes: int = 0


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
