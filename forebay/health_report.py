"""``forebay health``: what this machine carries, and whether the model answers, for cron."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil

CPU_WINDOW_S = 0.5
NVIDIA_PATIENCE_S = 10.0
CONNECT_MARGIN_S = 5.0
"""What the way to the server and back may take beyond what its model may."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """One look at this machine, and one question to the server.

    Loads are percentages, memory of the GPU is in MiB, both of the GPU that has most of it; None
    where there is none. ``reason``: why the service is not healthy. ``answer_ms``: how long the
    model took, where it answered.
    """

    timestamp: str
    gpu_load: float | None
    gpu_memory_used: float | None
    cpu_percent: float
    memory_used_percent: float
    service_healthy: bool
    reason: str | None = None
    answer_ms: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said of its model; ``reason`` None: it answered."""

    reason: str | None
    took_ms: int | None = None


def report(url: str, *, key: str | None, timeout_s: float) -> HealthReport:
    """Look at this machine and ask the server at ``url`` for a token."""
    answer = ask_model(url, key=key, timeout_s=timeout_s)
    load, memory = gpu_figures()
    return HealthReport(
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        gpu_load=load,
        gpu_memory_used=memory,
        cpu_percent=psutil.cpu_percent(CPU_WINDOW_S),
        memory_used_percent=psutil.virtual_memory().percent,
        service_healthy=answer.reason is None,
        reason=answer.reason,
        answer_ms=answer.took_ms,
    )


def ask_model(url: str, *, key: str | None, timeout_s: float) -> Answer:
    """Return whether the model behind ``url`` gave a token; no trouble on the way is raised."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx.get(
            f"{url}/health/generate", headers=headers, timeout=timeout_s, trust_env=False
        )
        body = reply.json()
        if reply.is_success and body["status"] == "ok":
            return Answer(None, int(body["took_ms"]))
        return Answer(str(body.get("reason") or f"status {reply.status_code}"))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(f"{url}: {type(error).__name__}: {error}".removesuffix(": "))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Answer(f"{url} does not answer as Forebay does")


def gpu_figures() -> tuple[float | None, float | None]:
    """Return (load in percent, memory in MiB) as NVIDIA's driver has them; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, None
    query = [program, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603
            query, capture_output=True, text=True, timeout=NVIDIA_PATIENCE_S, check=True
        )
        rows = [[float(part) for part in row.split(",")] for row in done.stdout.splitlines() if row]
        return max(row[0] for row in rows), max(row[1] for row in rows)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None, None
