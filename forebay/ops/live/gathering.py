"""Makes a point of what all processes say: worst machine, sums of rates, times of a minute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from forebay.ops.live.columns import Values
from forebay.ops.live.fleet_view import GONE_S
from forebay.ops.live.members import WORKER
from forebay.ops.live.spread import BOUNDS, quantile
from forebay.ops.live.window import Window
from forebay.queue.fleet import Member
from forebay.queue.ports import QueueDepth

RATES_S: Final = 10.0
TIMES_S: Final = 60.0
TIMES: Final = ("ttft", "tpot", "latency")
_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_CACHES: Final = ("prefill_tokens", "prefix_tokens", "images_encoded", "images_reused")
_LEAST_MEMORY: Final = 1
"""Bytes that a GPU has at least, so that a share of none is no error."""


class Gathering:
    """What the process that leads remembers from second to second. Times: ``time.monotonic``."""

    def __init__(self, now_s: float) -> None:
        self._began_s = now_s
        self._rates = Window(RATES_S, 3)
        self._times = {name: Window(TIMES_S, len(BOUNDS) + 1) for name in TIMES}
        self._caches = Window(TIMES_S, len(_CACHES))

    def point(
        self,
        now_s: float,
        reports: Mapping[str, Mapping[str, Any]],
        members: Sequence[Member],
        depth: QueueDepth,
        serving: int,
    ) -> Values:
        """Return the figures. ``reports``: of API processes; ``serving``: workers that do."""
        workers = [
            one.says for one in members if one.says["kind"] == WORKER and one.silent_s <= GONE_S
        ]
        machines = [one["machine"] for one in (*reports.values(), *workers) if one["machine"]]
        requests, errors, shed = self._door(now_s, reports)
        return {
            **of_machines(machines),
            "queue_length": depth.waiting,
            "oldest_age_s": depth.oldest_s,
            "token_backlog": depth.waiting_tokens,
            "requests_rate": requests,
            "errors_rate": errors,
            "shed_rate": shed,
            **self._spreads(now_s, workers),
            **of_engines([one["load"] for one in workers]),
            **self._hits(now_s, workers),
            "workers": serving,
        }

    def _door(self, now_s: float, reports: Mapping[str, Mapping[str, Any]]) -> list[float]:
        self._rates.see(now_s, {name: one["counts"] for name, one in reports.items()})
        return self._rates.rates(now_s, self._began_s)

    def _spreads(self, now_s: float, workers: Iterable[Mapping[str, Any]]) -> Values:
        found = {}
        workers = list(workers)
        for name, window in self._times.items():
            window.see(now_s, {one["life"]: one["times"][name] for one in workers})
            for told, share in _SHARES.items():
                found[f"{name}_{told}_s"] = quantile(window.total, share)
        return found

    def _hits(self, now_s: float, workers: Iterable[Mapping[str, Any]]) -> Values:
        counts = {one["life"]: [one["load"][name] for name in _CACHES] for one in workers}
        self._caches.see(now_s, counts)
        prefill, prefix, encoded, reused = self._caches.total
        return {
            "prefix_hits": _share(prefix, prefill + prefix),
            "encoder_hits": _share(reused, encoded + reused),
        }


def of_machines(machines: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the worst of every machine and GPU; the memory is of the GPU that is fullest."""
    gpus = [gpu for one in machines for gpu in one["gpus"]]
    fullest = max(gpus, key=lambda gpu: gpu[1] / max(gpu[2], _LEAST_MEMORY), default=None)
    return {
        "cpu": _worst(one["cpu"] for one in machines),
        "memory": _worst(one["memory"] for one in machines),
        "disk": _worst(one["disk"] for one in machines),
        "gpu_use": _worst(gpu[0] for gpu in gpus),
        "gpu_memory_bytes": fullest and fullest[1],
        "gpu_memory_share": fullest and fullest[1] / max(fullest[2], _LEAST_MEMORY),
        "gpu_temperature_c": _worst(gpu[3] for gpu in gpus),
        "gpu_power_w": _worst(gpu[4] for gpu in gpus),
    }


def of_engines(loads: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return how full the batches are together, and the fullest KV cache."""
    places = sum(one["max_running"] or 0 for one in loads)
    running = sum(one["running"] for one in loads)
    kv = (_share(one["kv_blocks_used"], one["kv_blocks_total"]) for one in loads)
    return {
        "running": running,
        "batch_occupancy": _share(running, places),
        "kv_use": _worst(kv),
    }


def _worst(values: Iterable[float | None]) -> float | None:
    return max((one for one in values if one is not None), default=None)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
