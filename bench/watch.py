"""Watches a server's processes while it works: memory and CPU time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

MEMORY_EVERY_S = 5.0
"""Reading the memory of a large process takes tens of milliseconds of the cores that it runs on."""


@dataclass(slots=True)
class Use:
    """What a server's processes used during a block, and this client, and everything else.

    ``peak_pss``: bytes, shared pages divided among the processes that share them.
    """

    peak_pss: int = 0
    cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    other_cpu_s: float = 0.0
    seconds: float = 0.0


@contextmanager
def watching(tree: Callable[[], list[psutil.Process]]) -> Iterator[Use]:
    """Watch the processes that ``tree`` lists; the figures are whole when the block has ended."""
    use, ended = Use(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(tree, use, ended), name="watch", daemon=True)
    began, busy, own = time.monotonic(), _busy_s(), _cpu_s(tree())
    client = _cpu_s([psutil.Process()])
    sampler.start()
    try:
        yield use
    finally:
        ended.set()
        sampler.join()
        use.cpu_s = _spent(own, _cpu_s(tree()))
        use.client_cpu_s = _spent(client, _cpu_s([psutil.Process()]))
        use.other_cpu_s = _busy_s() - busy - use.cpu_s - use.client_cpu_s
        use.seconds = time.monotonic() - began


def pss(processes: list[psutil.Process]) -> int:
    """Return the memory of processes together, in bytes."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def peak_rss(pid: int) -> int:
    """Return the most resident memory that a process has ever held, in bytes (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} tells no peak memory")


def _sample(tree: Callable[[], list[psutil.Process]], use: Use, ended: threading.Event) -> None:
    while True:
        use.peak_pss = max(use.peak_pss, pss(tree()))
        if ended.wait(MEMORY_EVERY_S):
            return


def _cpu_s(processes: list[psutil.Process]) -> dict[int, float]:
    spent: dict[int, float] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            spent[process.pid] = times.user + times.system
    return spent


def _spent(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(spent - before.get(pid, 0.0) for pid, spent in after.items())


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
