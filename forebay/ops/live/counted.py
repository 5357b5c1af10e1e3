"""What one API process has counted since its start, as it reports it: small, once a second."""

from __future__ import annotations

from typing import Any, Final

from forebay.ops.live.members import machine_says
from forebay.ops.metrics import Metrics
from forebay.ops.resources import MachineReading

SHED: Final = frozenset(
    {"queue_full", "door_full", "tenant_over_quota", "rate_limited", "too_many_connections"}
    | {"not_ready", "queue_unavailable"}
)
"""Errors by which requests are refused for want of room, not for what they ask."""

_OURS: Final = ("/v1/admin", "/healthz", "/health", "/ready", "/metrics")
_CLIENTS: Final = ("/v1/", "/predict", "/result")
"""Routes of clients; pages, health checks and the console's own questions are no load."""


def counted(metrics: Metrics, reading: MachineReading | None) -> dict[str, Any]:
    """Return the report: requests of clients, those that ended with a 5xx, those refused."""
    requests = errors = 0.0
    for labels, value in _samples(metrics.requests):
        if labels["route"].startswith(_CLIENTS) and not labels["route"].startswith(_OURS):
            requests += value
            errors += value if labels["status"].startswith("5") else 0.0
    shed = sum(value for labels, value in _samples(metrics.refused) if labels["code"] in SHED)
    machine = None if reading is None else machine_says(reading)
    return {"counts": [requests, errors, shed], "machine": machine}


def _samples(counter: Any) -> list[tuple[dict[str, str], float]]:
    return [
        (one.labels, one.value)
        for family in counter.collect()
        for one in family.samples
        if one.name.endswith("_total")
    ]
