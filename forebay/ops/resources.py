"""How this machine is: processors, memory, disk, GPUs, and how long its certificates are good."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
        psutil.cpu_percent(interval=None)  # its first answer is about nothing

    def read(self) -> MachineReading:
        """Return how the machine is."""
        return MachineReading(
            platform.node(),
            psutil.cpu_percent(interval=None) / 100,
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
