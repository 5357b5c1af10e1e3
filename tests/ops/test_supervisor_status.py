"""Whether a stack was left alone: its supervisor hangs, and no worker lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from forebay.ops.supervisor_status import LOCK, give_sign, is_abandoned
from forebay.ops.worker_status import Phase, WorkerStatus, write_status


@pytest.fixture
def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def supervised_by(folder: Path, pid: int, silent_s: float = 0.0) -> None:
    (folder / LOCK).write_text(str(pid), encoding="ascii")
    at_s = time.time() - silent_s
    os.utime(folder / LOCK, (at_s, at_s))


def worker_of(folder: Path, pid: int) -> None:
    write_status(folder, WorkerStatus("w", pid, Phase.READY, "m"))


def test_a_silent_supervisor_without_a_living_worker_has_left_its_stack(
    tmp_path: Path, dead_pid: int
) -> None:
    time.sleep(
        max(0.0, 1.5 - (time.time() - psutil.Process().create_time()))
    )  # this process must be older than its last sign
    worker_of(tmp_path, dead_pid)
    supervised_by(tmp_path, os.getpid(), silent_s=1.0)
    assert is_abandoned(tmp_path, silent_s=0.5)
    assert not is_abandoned(tmp_path, silent_s=60)
    give_sign(tmp_path)
    assert not is_abandoned(tmp_path, silent_s=0.5)


def test_a_worker_that_lives_a_supervisor_that_ended_and_none_at_all_are_no_reason(
    tmp_path: Path, dead_pid: int
) -> None:
    assert not is_abandoned(tmp_path, silent_s=0)
    supervised_by(tmp_path, dead_pid, silent_s=100)
    assert not is_abandoned(tmp_path, silent_s=0)
    supervised_by(tmp_path, os.getpid(), silent_s=1e9)  # before this process: another's number
    assert not is_abandoned(tmp_path, silent_s=0)
    supervised_by(tmp_path, os.getpid())
    worker_of(tmp_path, os.getpid())
    time.sleep(0.01)
    assert not is_abandoned(tmp_path, silent_s=0)
