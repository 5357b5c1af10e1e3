"""Every metric, with its unit in its name. Base units: seconds, bytes, tokens, pictures, tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from forebay.ops.resources import MachineReading
from forebay.queue.ports import QueueDepth

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_DECODE_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class SeenCounter(Collector):
    """A counter that somebody else counts: it shows what was seen last, one value a label."""

    def __init__(self, name: str, documentation: str, label: str) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._seen: Mapping[str, int] = {}

    def see(self, counts: Mapping[str, int]) -> None:
        """Take the present counts."""
        self._seen = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the counts in Prometheus' own form."""
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in self._seen.items():
            family.add_metric([value], count)
        yield family


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._door()
        self._queue()
        self._webhooks()
        self._machine()
        self._alerts()

    def _door(self) -> None:
        registry = self.registry
        self.requests = Counter(
            "forebay_http_requests_total",
            "HTTP requests by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "forebay_http_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "forebay_refused_total",
            "Requests refused before the queue, by error code.",
            ["code"],
            registry=registry,
        )
        self.admitted = Counter(
            "forebay_admitted_total", "Tasks that the queue has taken.", registry=registry
        )
        self.admitted_tokens = Counter(
            "forebay_admitted_tokens_total",
            "Priced tokens of the tasks that the queue has taken, by kind.",
            ["kind"],
            registry=registry,
        )
        self.answers_reused = Counter(
            "forebay_answers_reused_total",
            "Tasks that got another task's answer: one kept (cached), or one in flight (joined).",
            ["how"],
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "forebay_picture_decode_seconds",
            "Decoding and normalising one picture, the wait for a decoder included.",
            buckets=_DECODE_SECONDS,
            registry=registry,
        )
        self.decoder_kills = Gauge(
            "forebay_decoder_kills",
            "Decoder processes killed since the start of the door.",
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "forebay_first_token_seconds",
            "From a chat request's arrival to its first text (TTFT, queue wait included).",
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.abandoned = Counter(
            "forebay_abandoned_total",
            "Chat requests whose client went away before the answer's end.",
            registry=registry,
        )

    def _queue(self) -> None:
        registry = self.registry
        self.queue_up = Gauge(
            "forebay_queue_up", "1 when the queue's server answers.", registry=registry
        )
        self.queue_tasks = Gauge(
            "forebay_queue_tasks", "Tasks in the queue by place.", ["place"], registry=registry
        )
        self.queue_waiting_tokens = Gauge(
            "forebay_queue_waiting_tokens", "Priced tokens that wait.", registry=registry
        )
        self.queue_oldest_seconds = Gauge(
            "forebay_queue_oldest_seconds", "Age of the longest-waiting task.", registry=registry
        )
        self.queue_ended = Gauge(
            "forebay_queue_ended_tasks",
            "Tasks that workers have answered or failed since the queue was made.",
            registry=registry,
        )
        self.queue_drained = Gauge(
            "forebay_queue_drained", "1 while tasks are given out to nobody.", registry=registry
        )
        self.queue_wait_seconds = Gauge(
            "forebay_queue_wait_seconds",
            "Time from arrival to first lease: a mean that fades within minutes.",
            registry=registry,
        )
        self.queue_eta_error_seconds = Gauge(
            "forebay_queue_eta_error_seconds",
            "How far the start told at the door was off: a mean that fades within minutes.",
            registry=registry,
        )
        self.queue_rate = Gauge(
            "forebay_queue_tokens_per_second",
            "Priced tokens answered in a second of work: a mean that fades within minutes.",
            registry=registry,
        )
        self.workers = Gauge(
            "forebay_workers", "Workers with a recent sign of life.", registry=registry
        )
        self.workers_replaced = SeenCounter(
            "forebay_worker_replaced",
            "Worker processes of the queue that a supervisor replaced, by reason.",
            "reason",
        )
        registry.register(self.workers_replaced)

    def _webhooks(self) -> None:
        registry = self.registry
        self.webhooks = Counter(
            "forebay_webhook_attempts_total",
            "Attempts to deliver a webhook, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.webhooks_given_up = Counter(
            "forebay_webhooks_given_up_total",
            "Webhooks that will not be delivered: gone, or every attempt failed.",
            registry=registry,
        )
        self.webhook_seconds = Histogram(
            "forebay_webhook_seconds",
            "One attempt to deliver a webhook, from the look-up of its host to the answer's head.",
            buckets=_DECODE_SECONDS,
            registry=registry,
        )
        self.webhooks_waiting = Gauge(
            "forebay_webhooks_waiting",
            "Webhooks of the queue that are to be delivered, those between two attempts included.",
            registry=registry,
        )
        self.webhooks_due = Gauge(
            "forebay_webhooks_due",
            "Webhooks that are due and in nobody's hands.",
            registry=registry,
        )
        self.webhooks_crowded_out = Gauge(
            "forebay_webhooks_crowded_out",
            "Webhooks given up because too many waited, since the queue was made.",
            registry=registry,
        )

    def _machine(self) -> None:
        registry = self.registry
        self.cpu_use = Gauge(
            "forebay_cpu_use_ratio", "Processors in use.", ["host"], registry=registry
        )
        self.memory_use = Gauge(
            "forebay_memory_use_ratio", "Memory in use.", ["host"], registry=registry
        )
        self.disk_use = Gauge(
            "forebay_disk_use_ratio",
            "The data folder's disk in use.",
            ["host"],
            registry=registry,
        )
        self.gpu_use = Gauge(
            "forebay_gpu_use_ratio",
            "Time in which the GPU worked.",
            ["host", "gpu"],
            registry=registry,
        )
        self.gpu_memory_use = Gauge(
            "forebay_gpu_memory_use_ratio",
            "Memory of the GPU in use.",
            ["host", "gpu"],
            registry=registry,
        )
        self.gpu_memory_used = Gauge(
            "forebay_gpu_memory_used_bytes",
            "Memory of the GPU in use.",
            ["host", "gpu"],
            registry=registry,
        )
        self.gpu_temperature = Gauge(
            "forebay_gpu_temperature_celsius",
            "Temperature of the GPU.",
            ["host", "gpu"],
            registry=registry,
        )
        self.gpu_power = Gauge(
            "forebay_gpu_power_watts",
            "Power that the GPU draws.",
            ["host", "gpu"],
            registry=registry,
        )
        self.worker_restarts = Counter(
            "forebay_worker_restarts_total",
            "Times that a worker of this machine's stack began anew.",
            ["host", "worker"],
            registry=registry,
        )

    def _alerts(self) -> None:
        registry = self.registry
        self.certificate_expiry = Gauge(
            "forebay_certificate_expiry_timestamp_seconds",
            "When a watched certificate expires, since the epoch.",
            ["file"],
            registry=registry,
        )
        self.api_key_expiry = Gauge(
            "forebay_api_key_expiry_timestamp_seconds",
            "When the first of the good API keys expires, since the epoch.",
            registry=registry,
        )
        self.api_key_expiry.set(math.nan)
        self.alerts_firing = Gauge(
            "forebay_alerts_firing",
            "Alerts that fire, told by the process that judges them; 0 by the others.",
            registry=registry,
        )
        self.alert_pushes = Counter(
            "forebay_alert_pushes_total",
            "Messages about alerts, by channel and outcome.",
            ["channel", "outcome"],
            registry=registry,
        )

    def see_machine(self, reading: MachineReading) -> None:
        """Set the gauges of the machine; what it does not tell is withdrawn."""
        host = reading.host
        self.cpu_use.labels(host).set(reading.cpu_use)
        self.memory_use.labels(host).set(reading.memory_use)
        _set_or_clear(self.disk_use, {(host,): reading.disk_use})
        gpus = {(host, str(one.index)): one for one in reading.gpus}
        _set_or_clear(self.gpu_use, {key: one.use for key, one in gpus.items()})
        _set_or_clear(self.gpu_memory_use, {key: one.memory_use for key, one in gpus.items()})
        _set_or_clear(self.gpu_memory_used, {key: one.memory_used for key, one in gpus.items()})
        _set_or_clear(self.gpu_temperature, {key: one.temperature_c for key, one in gpus.items()})
        _set_or_clear(self.gpu_power, {key: one.power_w for key, one in gpus.items()})
        expiries: dict[tuple[str, ...], float | None] = {
            (file,): until_s for file, until_s in reading.certificates.items()
        }
        _set_or_clear(self.certificate_expiry, expiries)

    def see_restarts(self, host: str, restarts: Mapping[str, int]) -> None:
        """Count the workers that began anew; those that did not are told of, too, as 0."""
        for worker, times in restarts.items():
            self.worker_restarts.labels(host, worker).inc(times)

    def see_webhooks(self, *, waiting: int, due: int, crowded_out: int) -> None:
        """Set the gauges of webhooks."""
        self.webhooks_waiting.set(waiting)
        self.webhooks_due.set(due)
        self.webhooks_crowded_out.set(crowded_out)

    def see_queue(self, depth: QueueDepth, workers: int) -> None:
        """Set the queue's gauges."""
        self.queue_up.set(1)
        self.queue_tasks.labels("waiting").set(depth.waiting)
        self.queue_tasks.labels("leased").set(depth.leased)
        self.queue_tasks.labels("dead").set(depth.dead)
        self.queue_tasks.labels("delayed").set(depth.delayed)
        self.queue_waiting_tokens.set(depth.waiting_tokens)
        self.queue_oldest_seconds.set(depth.oldest_s)
        self.queue_ended.set(depth.ended)
        self.queue_drained.set(depth.drained)
        self.queue_wait_seconds.set(_or_nan(depth.wait_s))
        self.queue_eta_error_seconds.set(_or_nan(depth.eta_error_s))
        self.queue_rate.set(_or_nan(depth.tokens_per_s))
        self.workers.set(workers)

    def miss_queue(self) -> None:
        """Say that the queue does not answer; what is not known then is withdrawn."""
        self.queue_up.set(0)
        self.queue_tasks.clear()
        self.queue_oldest_seconds.set(math.nan)
        self.workers.set(math.nan)

    def render(self) -> bytes:
        """Return the text form that Prometheus reads."""
        return generate_latest(self.registry)


def _or_nan(value: float | None) -> float:
    """Return what Prometheus has for a value that nobody knows yet."""
    return math.nan if value is None else value


def _set_or_clear(gauge: Gauge, values: Mapping[tuple[str, ...], float | None]) -> None:
    """Set a gauge's series to these values, and have no others."""
    gauge.clear()
    for labels, value in values.items():
        if value is not None:
            gauge.labels(*labels).set(value)
