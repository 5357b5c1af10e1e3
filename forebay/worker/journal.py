"""What becomes of each delivery, and when: told to the worker's metrics and to its traces."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forebay.core.events import EngineEvent, PhaseBegun, TokenDelta
from forebay.core.lifecycle import State
from forebay.ops.spans import NO_SPANS, Spans
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.queue.ports import Lease, Outcome
from forebay.worker.course import Course, course_phases
from forebay.worker.delivery_spans import delivery_spans
from forebay.worker.leases import HeldLeases, LeaseKey, key_of

FIRST, AGAIN = "first", "again"
RETURNED = "returned"
REASONS = frozenset(
    {"lost", "stale_fence", "append_failed", "not_stored", "delivered_again"}
    | {"drain", "drain_deadline"}
)
"""In metrics. The other reasons are an engine's words, of which there may be any number."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears of what a worker does."""

    metrics: WorkerMetrics
    spans: Spans = NO_SPANS


class Journal:
    """Follows every held delivery of ``worker``; what it keeps is bounded by them."""

    def __init__(
        self,
        worker: str,
        held: HeldLeases,
        told: Told,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._held = held
        self._metrics, self._spans = told.metrics, told.spans
        self._now = clock
        self._courses: dict[LeaseKey, Course] = {}

    def leased(self, lease: Lease) -> None:
        """Begin to follow a delivery."""
        self._courses[key_of(lease)] = Course(lease, self._now())
        kind = FIRST if lease.deliveries <= 1 else AGAIN
        self._metrics.deliveries.labels(kind).inc()

    def heard(self, events: Sequence[EngineEvent]) -> None:
        """Note what the engine says, as it is heard."""
        now = self._now()
        for event in events:
            if isinstance(event, TokenDelta):
                if (course := self._of_run(event)) is not None:
                    self._token(course, event.tokens, now)
            elif isinstance(event, PhaseBegun) and (course := self._of_run(event)) is not None:
                course.phases[event.phase] = event.at

    def _of_run(self, event: TokenDelta | PhaseBegun) -> Course | None:
        key = self._held.of_run(event.task_id)
        return None if key is None else self._courses.get(key)

    def _token(self, course: Course, tokens: int, now: float) -> None:
        if course.first is None or course.last is None:
            course.first = now
            self._metrics.vllm_first_token.observe(max(0.0, now - course.arrived))
        else:
            for _ in range(tokens):  # those that came together took as long as one another
                self._metrics.vllm_between_tokens.observe((now - course.last) / tokens)
        course.last = now
        course.tokens += tokens

    def ended(self, outcome: Outcome, wrote_s: float) -> None:
        """Note that a result was stored, and that writing it took so long."""
        course = self._courses.pop((outcome.task_id, outcome.fence), None)
        self._metrics.result_seconds.observe(wrote_s)
        if course is None:
            return
        now = self._now()
        code = "" if outcome.error is None else outcome.error.code
        self._metrics.ended.labels(code or "answered").inc()
        self._metrics.see_duration(max(0.0, now - course.arrived), code)
        if outcome.error is None:
            self._answered(course, outcome, now, wrote_s)
        self._show(course, now, wrote_s, code)

    def dropped(self, key: LeaseKey, why: str) -> None:
        """Note that a delivery ended here without a result."""
        course = self._courses.pop(key, None)
        if course is not None:
            self._metrics.dropped.labels(why if why in REASONS else RETURNED).inc()
            self._show(course, self._now(), None, why)

    def _show(self, course: Course, now: float, wrote_s: float | None, error: str) -> None:
        if self._spans.on:
            self._spans.add(delivery_spans(course, now, wrote_s, error, self._worker))

    def _answered(self, course: Course, outcome: Outcome, now: float, wrote_s: float) -> None:
        metrics = self._metrics
        metrics.vllm_latency.observe(max(0.0, now - course.arrived))
        metrics.see_success(outcome.finish_reason)
        if outcome.usage is not None:
            metrics.vllm_prompt_tokens.inc(outcome.usage.prompt_tokens)
            metrics.vllm_generation_tokens.inc(outcome.usage.completion_tokens)
            metrics.vllm_request_prompt.observe(outcome.usage.prompt_tokens)
            metrics.vllm_request_generation.observe(outcome.usage.completion_tokens)
        if course.first is not None and course.last is not None:
            metrics.otel_first_token.observe(max(0.0, course.first - course.arrived))
            if course.tokens > 1:
                mean_s = (course.last - course.first) / (course.tokens - 1)
                metrics.vllm_token_mean.observe(mean_s)
                metrics.otel_token.observe(mean_s)
        self._phases(course, now - wrote_s)
        metrics.phase_seconds.labels("publishing").observe(wrote_s)

    def _phases(self, course: Course, end: float) -> None:
        """Note how long each phase took; ``end``: when the engine was done."""
        metrics, phases = self._metrics, course.phases
        metrics.phase_seconds.labels("waiting").observe(course.lease.waited_s)
        began = course.began
        if began is None:
            return
        metrics.phase_seconds.labels("preparing").observe(max(0.0, began - course.leased))
        metrics.vllm_queue_time.observe(max(0.0, began - course.arrived))
        metrics.vllm_inference_time.observe(max(0.0, end - began))
        decode = phases.get(State.DECODE)
        if decode is not None:
            metrics.vllm_prefill_time.observe(max(0.0, decode - began))
            metrics.vllm_decode_time.observe(max(0.0, end - decode))
        for phase, begin, until in course_phases(course, end):
            metrics.phase_seconds.labels(phase.value).observe(max(0.0, until - begin))
