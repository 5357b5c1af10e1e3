"""Metrics as ``metrics.toml`` has them: read, made, and shown in Prometheus' text form."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from forebay.ops.resources import MachineReading

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Group(StrEnum):
    """What a metric is about: the tables of ``metrics.toml``, in its order."""

    DOOR = "door"
    QUEUE = "queue"
    WEBHOOKS = "webhooks"
    MACHINE = "machine"
    ALERTS = "alerts"
    WORKER = "worker"
    ENGINE = "engine"
    VLLM = "vllm"
    OTEL = "gen_ai"


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of one metric. ``says``: by language. ``buckets``: of a histogram.

    ``otlp``: its name there, where it has another than here.
    """

    name: str
    group: Group
    kind: str
    unit: str
    labels: tuple[str, ...]
    says: Mapping[str, str]
    buckets: tuple[float, ...] = ()
    otlp: str = ""


@cache
def facts() -> Mapping[str, Fact]:
    """Return every metric by its name."""
    text = (files("forebay.ops") / "metrics.toml").read_text(encoding="utf-8")
    told = tomllib.loads(text)
    rows = [(group, *row) for group in Group for row in told[group].items()]
    return {name: _fact(name, group, raw, told["buckets"]) for group, name, raw in rows}


def _fact(name: str, group: Group, raw: Mapping[str, Any], buckets: Mapping[str, Any]) -> Fact:
    return Fact(
        name,
        group,
        raw["kind"],
        raw["unit"],
        tuple(raw.get("labels", ())),
        {"en": raw["en"], "zh": raw["zh"]},
        tuple(buckets[raw["buckets"]]) if "buckets" in raw else (),
        raw.get("otlp", ""),
    )


class SeenCounter(Collector):
    """A counter that somebody else counts: it shows what was seen last, one value a label."""

    def __init__(self, fact: Fact) -> None:
        self._fact = fact
        self._seen: Mapping[str, int] = {}

    def see(self, counts: Mapping[str, int]) -> None:
        """Take the present counts."""
        self._seen = counts

    def collect(self) -> Iterator[Metric]:
        """Return the counts in Prometheus' own form."""
        fact = self._fact
        family = CounterMetricFamily(fact.name, fact.says["en"], labels=fact.labels)
        for value, count in self._seen.items():
            family.add_metric([value], count)
        yield family


class AlsoCalled(Collector):
    """Shows a histogram under a second name: what was counted once is told twice."""

    def __init__(self, one: Histogram, name: str, fact: Fact) -> None:
        self._one, self._name, self._fact = one, name, fact

    def collect(self) -> Iterator[Metric]:
        """Return the other's samples, renamed."""
        for family in self._one.collect():
            renamed = Metric(self._fact.name, self._fact.says["en"], family.type)
            for one in family.samples:
                name = one.name.replace(self._name, self._fact.name, 1)
                renamed.add_sample(name, dict(one.labels), one.value)
            yield renamed


class MetricBook:
    """The metrics of one process, in a registry of their own; the machine's are in every one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.otlp_exports = self._counter("forebay_otlp_exports_total")
        self.spans_dropped = self._counter("forebay_spans_dropped_total")
        self.cpu_use = self._gauge("forebay_cpu_use_ratio")
        self.memory_use = self._gauge("forebay_memory_use_ratio")
        self.disk_use = self._gauge("forebay_disk_use_ratio")
        self.gpu_use = self._gauge("forebay_gpu_use_ratio")
        self.gpu_memory_use = self._gauge("forebay_gpu_memory_use_ratio")
        self.gpu_memory_used = self._gauge("forebay_gpu_memory_used_bytes")
        self.gpu_temperature = self._gauge("forebay_gpu_temperature_celsius")
        self.gpu_power = self._gauge("forebay_gpu_power_watts")

    def _counter(self, name: str) -> Counter:
        fact = facts()[name]
        return Counter(name, fact.says["en"], fact.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        fact = facts()[name]
        return Gauge(name, fact.says["en"], fact.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        fact = facts()[name]
        return Histogram(
            name, fact.says["en"], fact.labels, buckets=fact.buckets, registry=self.registry
        )

    def see_machine(self, reading: MachineReading) -> None:
        """Set the gauges of the machine; what it does not tell is withdrawn."""
        host = reading.host
        self.cpu_use.labels(host).set(reading.cpu_use)
        self.memory_use.labels(host).set(reading.memory_use)
        set_or_clear(self.disk_use, {(host,): reading.disk_use})
        gpus = {(host, str(one.index)): one for one in reading.gpus}
        set_or_clear(self.gpu_use, {key: one.use for key, one in gpus.items()})
        set_or_clear(self.gpu_memory_use, {key: one.memory_use for key, one in gpus.items()})
        set_or_clear(self.gpu_memory_used, {key: one.memory_used for key, one in gpus.items()})
        set_or_clear(self.gpu_temperature, {key: one.temperature_c for key, one in gpus.items()})
        set_or_clear(self.gpu_power, {key: one.power_w for key, one in gpus.items()})

    def render(self) -> bytes:
        """Return the text form that Prometheus reads, of this process alone."""
        return generate_latest(self.registry)


def set_or_clear(gauge: Gauge, values: Mapping[tuple[str, ...], float | None]) -> None:
    """Set a gauge's series to these values, and have no others."""
    gauge.clear()
    for labels, value in values.items():
        if value is not None:
            gauge.labels(*labels).set(value)
