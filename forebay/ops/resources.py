"""How this machine is: processors, memory, disk, GPUs, and how long its certificates are good."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import structlog
from cryptography import x509

from forebay.ops.nvml import GpuReading, Nvml

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MachineReading:
    """A machine now. Shares from 0 to 1. ``cpu_use``: since the last reading."""

    host: str
    cpu_use: float
    memory_use: float
    disk_use: float | None
    gpus: tuple[GpuReading, ...] = ()
    certificates: dict[str, float] = field(default_factory=dict)
    """When each file's first certificate expires, s since the epoch; unreadable files are left."""


class Machine:
    """Reads this machine; ``folder``: whose disk is watched. Calls block for milliseconds."""

    def __init__(self, folder: Path, certificates: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._certificates = tuple(certificates)
        self._nvml = Nvml.open()
        self._processors = _Processors()

    def read(self) -> MachineReading:
        """Return how the machine is."""
        return MachineReading(
            platform.node(),
            self._processors.use(),
            psutil.virtual_memory().percent / 100,
            self._disk(),
            self._nvml.read() if self._nvml is not None else (),
            {str(file): until_s for file in self._certificates if (until_s := _expiry_s(file))},
        )

    def _disk(self) -> float | None:
        try:
            usage = shutil.disk_usage(_existing(self._folder))
        except OSError as error:  # such as a mount that is gone
            log.warning("disk_unread", folder=str(self._folder), reason=str(error))
            return None
        # as df has it: what only root may use counts as taken
        return usage.used / (usage.used + usage.free) if usage.used + usage.free else None


class _Processors:
    """The processors' time since the last look of this reader: others may look at other times."""

    def __init__(self) -> None:
        self._last = psutil.cpu_times()
        self._use = 0.0

    def use(self) -> float:
        """Return the share of the time in which they worked."""
        before, now = self._last, psutil.cpu_times()
        whole_s = _whole_s(now) - _whole_s(before)
        if whole_s <= 0:  # two looks within a tick of the clock
            return self._use
        self._last = now
        self._use = min(1.0, max(0.0, 1 - (_idle_s(now) - _idle_s(before)) / whole_s))
        return self._use


def _whole_s(times: Any) -> float:
    # Linux counts guests' time in user and nice already
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - guests)


def _idle_s(times: Any) -> float:
    return float(times.idle + getattr(times, "iowait", 0.0))


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there by now."""
    return next((one for one in (folder, *folder.parents) if one.exists()), folder)


def _expiry_s(file: Path) -> float | None:
    """Return when the first certificate of a file of several to expire does."""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        log.warning("certificate_unread", file=str(file), reason=str(error))
        return None
    return min(one.not_valid_after_utc.timestamp() for one in found)
