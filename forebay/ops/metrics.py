"""The metrics of an API process, explained in ``metrics.toml``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from forebay.ops.metric_book import (
    CONTENT_TYPE,
    Group,
    MetricBook,
    SeenCounter,
    facts,
    set_or_clear,
)
from forebay.ops.resources import MachineReading
from forebay.queue.groups import Trial
from forebay.queue.ports import QueueDepth

__all__ = ["CONTENT_TYPE", "OTHER", "SHARED", "THE_QUEUE", "Metrics"]

THE_QUEUE: Final = "queue"
"""As an ``engine`` of vLLM's metrics: what waits before any engine has it."""

OTHER: Final = "other"
"""What stands for the values that have no series of their own."""

SHARED: Final = frozenset(
    {
        "vllm:num_requests_waiting",
        *(name for name, fact in facts().items() if fact.group is Group.QUEUE),
    }
)
"""What every API process sees alike, because it is the queue's: one tells it for all."""


class Metrics(MetricBook):
    """The metrics of an API process. ``model``: as clients know it; ``tenants``: most told apart.

    Later tenants are counted together, as ``other``; with 0 there is no metric by tenant.
    """

    def __init__(self, model: str = "", tenants: int = 0) -> None:
        super().__init__()
        self._model = model
        self._most_tenants = tenants
        self._tenants: set[str] = set()
        self._door()
        self._pictures()
        self._queue()
        self._webhooks()
        self.worker_restarts = self._counter("forebay_worker_restarts_total")
        self._alerts()
        self._canary()

    def _door(self) -> None:
        self.requests = self._counter("forebay_http_requests_total")
        self.request_seconds = self._histogram("forebay_http_request_seconds")
        self.refused = self._counter("forebay_refused_total")
        self.callers = self._counter("forebay_callers_total")
        self.admitted = self._counter("forebay_admitted_total")
        self.admitted_tokens = self._counter("forebay_admitted_tokens_total")
        self.tenant_tasks = self._counter("forebay_tenant_admitted_total")
        self.answers_reused = self._counter("forebay_answers_reused_total")
        self.first_token_seconds = self._histogram("forebay_first_token_seconds")
        self.abandoned = self._counter("forebay_abandoned_total")
        self.held_bytes = self._gauge("forebay_held_bytes")

    def _pictures(self) -> None:
        self.decode_seconds = self._histogram("forebay_picture_decode_seconds")
        self.decoders_busy = self._gauge("forebay_decoders_busy")
        self.decoder_kills = self._gauge("forebay_decoder_kills")
        self.fetches = self._counter("forebay_fetches_total")
        self.fetch_seconds = self._histogram("forebay_fetch_seconds")
        self.fetch_cache_bytes = self._gauge("forebay_fetch_cache_bytes")

    def _queue(self) -> None:
        self.queue_up = self._gauge("forebay_queue_up")
        self.queue_tasks = self._gauge("forebay_queue_tasks")
        self.queue_waiting_tokens = self._gauge("forebay_queue_waiting_tokens")
        self.queue_oldest_seconds = self._gauge("forebay_queue_oldest_seconds")
        self.queue_ended = self._gauge("forebay_queue_ended_tasks")
        self.queue_drained = self._gauge("forebay_queue_drained")
        self.queue_wait_seconds = self._gauge("forebay_queue_wait_seconds")
        self.queue_eta_error_seconds = self._gauge("forebay_queue_eta_error_seconds")
        self.queue_rate = self._gauge("forebay_queue_tokens_per_second")
        self.workers = self._gauge("forebay_workers")
        self.workers_replaced = SeenCounter(facts()["forebay_worker_replaced_total"])
        self.registry.register(self.workers_replaced)
        self.vllm_waiting = self._gauge("vllm:num_requests_waiting")

    def _webhooks(self) -> None:
        self.webhooks = self._counter("forebay_webhook_attempts_total")
        self.webhooks_given_up = self._counter("forebay_webhooks_given_up_total")
        self.webhook_seconds = self._histogram("forebay_webhook_seconds")
        self.webhooks_waiting = self._gauge("forebay_webhooks_waiting")
        self.webhooks_due = self._gauge("forebay_webhooks_due")
        self.webhooks_crowded_out = self._gauge("forebay_webhooks_crowded_out")

    def _alerts(self) -> None:
        self.certificate_expiry = self._gauge("forebay_certificate_expiry_timestamp_seconds")
        self.api_key_expiry = self._gauge("forebay_api_key_expiry_timestamp_seconds")
        self.api_key_expiry.set(math.nan)
        self.alerts_judged = self._gauge("forebay_alerts_judged_timestamp_seconds")
        self.alerts_judged.set(math.nan)
        self.alerts_firing = self._gauge("forebay_alerts_firing")
        self.alert_pushes = self._counter("forebay_alert_pushes_total")

    def _canary(self) -> None:
        self.canary_share = self._gauge("forebay_canary_share_ratio")
        self.canary_rolled_back = self._gauge("forebay_canary_rolled_back")
        self.group_workers = self._gauge("forebay_group_workers")
        self.group_tasks = self._gauge("forebay_group_tasks")
        self.group_first_token = self._gauge("forebay_group_first_token_p95_seconds")
        self.group_answer = self._gauge("forebay_group_answer_p95_seconds")

    def see_canary(self, trial: Trial, *, rolled_back: bool) -> None:
        """Set the gauges of the two groups of workers."""
        self.canary_share.set(trial.share)
        self.canary_rolled_back.set(rolled_back)
        for group, counts in trial.counts.items():
            self.group_workers.labels(group.value).set(trial.workers[group])
            for outcome in ("answered", "empty", "failed", "lost"):
                self.group_tasks.labels(group.value, outcome).set(getattr(counts, outcome))
            self.group_first_token.labels(group.value).set(_or_nan(counts.first.quantile_s(0.95)))
            self.group_answer.labels(group.value).set(_or_nan(counts.whole.quantile_s(0.95)))

    def see_machine(self, reading: MachineReading) -> None:
        """Set the gauges of the machine; what it does not tell is withdrawn."""
        super().see_machine(reading)
        expiries: dict[tuple[str, ...], float | None] = {
            (file,): until_s for file, until_s in reading.certificates.items()
        }
        set_or_clear(self.certificate_expiry, expiries)

    def see_restarts(self, host: str, restarts: Mapping[str, int]) -> None:
        """Count the workers that began anew; those that did not are told of, too, as 0."""
        for worker, times in restarts.items():
            self.worker_restarts.labels(host, worker).inc(times)

    def see_webhooks(self, *, waiting: int, due: int, crowded_out: int) -> None:
        """Set the gauges of webhooks."""
        self.webhooks_waiting.set(waiting)
        self.webhooks_due.set(due)
        self.webhooks_crowded_out.set(crowded_out)

    def see_tenant(self, tenant: str) -> None:
        """Count a task by its tenant, where that is wanted and there are not too many already."""
        if not self._most_tenants:
            return
        if tenant not in self._tenants and len(self._tenants) >= self._most_tenants:
            tenant = OTHER
        else:
            self._tenants.add(tenant)
        self.tenant_tasks.labels(tenant).inc()

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
        self.vllm_waiting.labels(self._model, THE_QUEUE).set(depth.waiting)

    def miss_queue(self) -> None:
        """Say that the queue does not answer; what is not known then is withdrawn."""
        self.queue_up.set(0)
        self.queue_tasks.clear()
        self.vllm_waiting.clear()
        self.queue_oldest_seconds.set(math.nan)
        self.workers.set(math.nan)


def _or_nan(value: float | None) -> float:
    """Return what Prometheus has for a value that nobody knows yet."""
    return math.nan if value is None else value
