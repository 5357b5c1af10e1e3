"""What workers, supervisors and API processes say of themselves once a second, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from forebay.core.engine_load import EngineLoad
from forebay.ops.resources import MachineReading

WORKER: Final = "worker"
STACK: Final = "stack"


@dataclass(frozen=True, slots=True)
class WorkerCard:
    """What stays as it is for a worker's life. ``started_s``: since the epoch.

    ``group``: ``stable`` or ``canary``.
    """

    host: str
    pid: int
    started_s: float
    model: str
    version: str
    device: str
    quantization: str
    group: str = "stable"

    @property
    def life(self) -> str:
        """What no other life of this worker has."""
        return f"{self.host}:{self.pid}:{self.started_s:.3f}"


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """How a worker is. ``still_s``: for how long its engine has had work and has not moved.

    ``news``: tokens, phases and ends that it has brought.
    """

    state: str
    held: int
    answered: int
    failed: int
    news: int
    memory_bytes: int
    still_s: float
    load: EngineLoad
    times: Mapping[str, list[int]]


def worker_says(card: WorkerCard, now: WorkerNow, reading: MachineReading | None) -> dict[str, Any]:
    """Return what a worker reports."""
    return {
        "kind": WORKER,
        **asdict(card),
        "life": card.life,
        **asdict(now),
        "machine": None if reading is None else machine_says(reading),
    }


def machine_says(reading: MachineReading) -> dict[str, Any]:
    """Return what is reported of a machine."""
    return {
        "cpu": reading.cpu_use,
        "memory": reading.memory_use,
        "disk": reading.disk_use,
        "gpus": [
            [one.use, one.memory_used, one.memory_total, one.temperature_c, one.power_w]
            for one in reading.gpus
        ],
    }
