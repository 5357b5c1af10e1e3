"""A supervisor's sign of life on its own machine: its lock file, touched about every second."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import psutil

from forebay.ops.worker_status import living_workers

LOCK: Final = "lock"
"""In a stack's run folder; it holds the supervisor's process id."""

BEAT_S: Final = 1.0

SILENT_S: Final = 30.0
"""A supervisor that lives and has not touched its file for so long mends nothing."""


def give_sign(folder: Path) -> None:
    """Touch the lock file of the stack in ``folder``."""
    with contextlib.suppress(OSError):
        os.utime(folder / LOCK)


def is_abandoned(folder: Path, silent_s: float = SILENT_S) -> bool:
    """Whether no worker of this machine's stack lives, and its supervisor hangs.

    Then nobody ever answers again, however well the API is. A supervisor that has ended has taken
    its workers and its API along; an API without one has nothing of this to answer for.
    """
    try:
        beat_s = (folder / LOCK).stat().st_mtime
        pid = int((folder / LOCK).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    silent = time.time() - beat_s > silent_s
    return silent and _lived_at(pid, beat_s) and not living_workers(folder)


def _lived_at(pid: int, at_s: float) -> bool:
    """Whether the process lives and did so then; a later one of the same number is another."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= at_s and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
