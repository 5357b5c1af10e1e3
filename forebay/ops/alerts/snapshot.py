"""What a process's own metrics say now, of the series that rules look at."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry

from forebay.ops.alerts.series import History, Sample

INSTANCE = "instance"


def snapshot(registry: CollectorRegistry, history: History) -> list[Sample]:
    """Return the samples that ``history`` wants; values that nobody knows (NaN) are left."""
    found = []
    for family in registry.collect():
        for one in family.samples:
            labels = tuple(sorted(one.labels.items()))
            if not math.isnan(one.value) and history.wants(one.name, labels):
                found.append(Sample(one.name, labels, one.value))
    return found


def of_instance(samples: list[Sample], process: str) -> list[Sample]:
    """Return samples told apart by their process, as Prometheus does by what it scrapes."""
    mark = ((INSTANCE, process),)
    return [Sample(one.name, tuple(sorted(one.labels + mark)), one.value) for one in samples]
