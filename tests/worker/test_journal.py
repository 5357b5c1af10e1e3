"""What a worker's metrics say of its deliveries, by a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.core.events import Finished, FinishReason, PhaseBegun, TokenDelta, Usage
from forebay.core.lifecycle import State
from forebay.core.request import InferenceRequest, TaskId, Terms
from forebay.core.trace import new_trace
from forebay.ops.spans import Span
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.queue.ports import Fence, Lease, Outcome, TaskError
from forebay.worker.journal import Journal, Told
from forebay.worker.leases import HeldLeases, key_of, run_id

USAGE = Usage(prompt_tokens=40, completion_tokens=5)


class Sink:
    on = True

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def add(self, spans: Any) -> None:
        self.spans.extend(spans)


class Notes:
    """A journal with one lease, whose clock stands until it is moved."""

    def __init__(self, **lease: Any) -> None:
        self.now = 1000.0
        self.metrics, self.sink = WorkerMetrics("m", "w"), Sink()
        self.held = HeldLeases(4, 10**6)
        told = Told(self.metrics, self.sink)
        self.journal = Journal("w", self.held, told, clock=lambda: self.now)
        about = {"cost_total": 1, "deliveries": 1, "age_s": 2.0, "waited_s": 2.0, **lease}
        self.lease = Lease(TaskId("t"), Fence(1), InferenceRequest("m", ()), **about)
        self.key = key_of(self.lease)
        self.run = run_id(self.key)
        self.held.take(self.lease)
        self.journal.leased(self.lease)

    def after(self, seconds: float, *events: Any) -> None:
        """Move the clock, then hear; a state stands for its phase, begun at that moment."""
        self.now += seconds
        heard = [PhaseBegun(self.run, e, self.now) if isinstance(e, State) else e for e in events]
        self.journal.heard(heard)

    def value(self, name: str, **labels: str) -> float | None:
        of = {"model_name": "m", "engine": "w"} if name.startswith("vllm:") else {}
        return self.metrics.registry.get_sample_value(name, {**of, **labels})

    def sum(self, name: str, **labels: str) -> Any:
        return pytest.approx(self.value(f"{name}_sum", **labels), abs=1e-6)


def answered() -> Notes:
    notes = Notes()
    notes.after(0.5)
    notes.after(0.0, State.ENCODING)
    notes.after(0.3, State.PREFILL)
    notes.after(0.2, State.DECODE, TokenDelta(notes.run, "a", 1))
    notes.after(0.1, TokenDelta(notes.run, "b", 1))
    notes.after(0.3, TokenDelta(notes.run, "cde", 3))
    notes.after(0.0, Finished(notes.run, "abcde", FinishReason.LENGTH, USAGE))
    notes.now += 0.05
    notes.journal.ended(Outcome(*notes.key, finish_reason="length", usage=USAGE), 0.05)
    return notes


def test_times_run_from_the_arrival_in_the_queue() -> None:
    notes = answered()
    assert notes.sum("vllm:time_to_first_token_seconds") == 3.0
    assert notes.sum("vllm:request_queue_time_seconds") == 2.5
    assert notes.sum("vllm:request_prefill_time_seconds") == 0.5
    assert notes.sum("vllm:request_decode_time_seconds") == 0.4
    assert notes.sum("vllm:request_inference_time_seconds") == 0.9
    assert notes.sum("vllm:e2e_request_latency_seconds") == 3.45


def test_every_token_after_the_first_counts_once() -> None:
    notes = answered()
    assert notes.value("vllm:inter_token_latency_seconds_count") == 4
    assert notes.sum("vllm:inter_token_latency_seconds") == 0.4
    assert notes.value("vllm:time_per_output_token_seconds_count") == 4
    assert notes.sum("vllm:request_time_per_output_token_seconds") == 0.1
    assert notes.value("vllm:generation_tokens_total") == 5
    assert notes.value("vllm:prompt_tokens_total") == 40
    assert notes.value("vllm:request_success_total", finished_reason="length") == 1


def test_phases_add_up_to_the_whole() -> None:
    notes = answered()
    phases = ("waiting", "preparing", "encoding", "prefill", "decode", "publishing")
    values = [notes.value("forebay_task_phase_seconds_sum", phase=one) or 0.0 for one in phases]
    assert values == pytest.approx([2.0, 0.5, 0.3, 0.2, 0.4, 0.05], abs=1e-6)
    assert notes.sum("vllm:e2e_request_latency_seconds") == sum(values)


def test_a_failure_is_no_success_and_has_its_code() -> None:
    notes = Notes()
    notes.now += 1
    error = TaskError("prompt_too_long", "it is")
    notes.journal.ended(Outcome(*notes.key, error=error), 0.0)
    assert notes.value("forebay_worker_tasks_total", outcome="prompt_too_long") == 1
    assert notes.value("vllm:e2e_request_latency_seconds_count") == 0
    assert notes.value("forebay_worker_tasks_total", outcome="answered") is None


def test_what_is_dropped_before_any_phase_is_counted_and_shown() -> None:
    notes = Notes(terms=Terms(trace=new_trace(sampled=True)), deliveries=2)
    notes.now += 1
    notes.journal.dropped(notes.key, "the server said something of its own")
    notes.journal.dropped(notes.key, "lost")  # it was dropped already
    assert notes.value("forebay_worker_dropped_total", why="returned") == 1
    assert notes.value("forebay_worker_dropped_total", why="lost") is None
    assert notes.value("forebay_worker_deliveries_total", kind="again") == 1
    assert [one.name for one in notes.sink.spans] == ["queue", "lease", "prepare"]
    assert notes.sink.spans[1].end_s - notes.sink.spans[1].start_s == pytest.approx(1.0, abs=1e-3)


def test_events_of_a_delivery_that_is_gone_are_nobodys() -> None:
    notes = Notes()
    notes.held.drop(notes.key)
    notes.journal.dropped(notes.key, "lost")
    notes.after(1, TokenDelta(notes.run, "a", 1))
    assert notes.value("vllm:time_to_first_token_seconds_count") == 0


def test_a_trace_that_is_not_to_be_kept_leaves_no_spans() -> None:
    notes = Notes(terms=Terms(trace=new_trace()))
    notes.journal.dropped(notes.key, "lost")
    assert notes.sink.spans == []
