"""What a point has: each figure of the console, with its unit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "gpu_use": "share",
        "gpu_memory_bytes": "bytes",
        "gpu_memory_share": "share",
        "gpu_temperature_c": "celsius",
        "gpu_power_w": "watts",
        "cpu": "share",
        "memory": "share",
        "disk": "share",
        "queue_length": "count",
        "oldest_age_s": "seconds",
        "token_backlog": "count",
        "shed_rate": "per_second",
        "requests_rate": "per_second",
        "errors_rate": "per_second",
        "ttft_p50_s": "seconds",
        "ttft_p95_s": "seconds",
        "ttft_p99_s": "seconds",
        "tpot_p50_s": "seconds",
        "tpot_p95_s": "seconds",
        "tpot_p99_s": "seconds",
        "latency_p50_s": "seconds",
        "latency_p95_s": "seconds",
        "latency_p99_s": "seconds",
        "batch_occupancy": "share",
        "running": "count",
        "kv_use": "share",
        "prefix_hits": "share",
        "encoder_hits": "share",
        "workers": "count",
    }
)
"""In the order in which points are kept; a change of it needs another ``FORM``."""

KEYS: Final = tuple(UNITS)

FORM: Final = "1"
"""What a kept point begins with. Points of another form, so of another release, are left."""

Values = Mapping[str, float | None]
"""A point's figures by key; None: nobody knows it, or there is no such device."""
