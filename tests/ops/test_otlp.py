"""Spans and metrics as a collector gets them: over a socket, parsed from protobuf's bytes."""

from __future__ import annotations

import socket
import time

import pytest

from forebay.config import Settings, SettingsError
from forebay.config.telemetry import read_headers
from forebay.core.events import StepStats
from forebay.core.trace import new_trace
from forebay.ops import otlp
from forebay.ops.metrics import Metrics
from forebay.ops.otlp import OtlpExporter, OtlpTerms
from forebay.ops.otlp_messages import Origin
from forebay.ops.spans import NO_SPANS, Span, SpanKind
from forebay.ops.telemetry import TelemetryTerms, telemetry
from forebay.ops.worker_metrics import WorkerMetrics
from tests.ops.otlp_collector import Collector, collecting

PARENT = "00f067aa0ba902b7"
ORIGIN = Origin("forebay", "1.2", "worker-0", since_ns=1_000)


def spans(count: int) -> list[Span]:
    now = time.time()
    return [
        Span(f"s{at}", new_trace(sampled=True), PARENT, now, now + 1.5, SpanKind.CONSUMER,
             "inference_failed" if at % 2 else "", {"n": at, "share": 0.5, "on": True, "of": "x"})
        for at in range(count)
    ]  # fmt: skip


def exporter(collector: Collector, book: Metrics | WorkerMetrics, **terms: object) -> OtlpExporter:
    return OtlpExporter(OtlpTerms(collector.url, **terms), ORIGIN, book)  # type: ignore[arg-type]


async def test_a_span_arrives_as_it_was() -> None:
    with collecting() as collector:
        async with exporter(collector, Metrics(), headers={"x-key": "k"}) as sends:
            sent = spans(2)
            sends.add(sent)
        seen = sorted(collector.spans, key=lambda one: one.name)
        assert [one.name for one in seen] == ["s0", "s1"]
        assert [one.trace_id for one in seen] == [one.place.trace_id for one in sent]
        assert [one.span_id for one in seen] == [one.place.span_id for one in sent]
        assert {one.parent for one in seen} == {PARENT}
        assert seen[0].end_ns - seen[0].start_ns == pytest.approx(1.5e9, abs=1000)
        assert [one.error for one in seen] == ["", "inference_failed"]
        assert seen[1].attributes == {
            "n": 1, "share": 0.5, "on": True, "of": "x", "error.type": "inference_failed"
        }  # fmt: skip
        assert seen[0].kind == 5
        assert collector.resources[0] == {
            "service.name": "forebay", "service.version": "1.2", "service.instance.id": "worker-0"
        }  # fmt: skip
        assert collector.headers[0]["x-key"] == "k"
        assert collector.headers[0]["Content-Type"] == "application/x-protobuf"


async def test_metrics_arrive_under_the_conventions_names_with_units_and_bounds() -> None:
    book = WorkerMetrics("glm", "worker-0")
    for seconds in (0.015, 0.015, 3.0, 1000.0):
        book.see_duration(seconds)
    book.see_success("stop")
    book.see_step(StepStats(running=3, kv_blocks_used=1, kv_blocks_total=4))
    with collecting() as collector:
        async with exporter(collector, book):
            pass
        duration = collector.metrics["gen_ai.server.request.duration"]
        (point,) = duration.histogram.data_points
        assert duration.unit == "s"
        assert (point.count, sum(point.bucket_counts)) == (4, 4)
        assert point.sum == pytest.approx(1003.03)
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert list(point.explicit_bounds)[:3] == [0.01, 0.02, 0.04]
        assert (point.bucket_counts[1], point.bucket_counts[-1]) == (2, 1)
        told = {one.key: one.value.string_value for one in point.attributes}
        assert told == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "forebay",
            "gen_ai.request.model": "glm",
        }
        success = collector.metrics["vllm:request_success"].sum
        assert (success.is_monotonic, success.data_points[0].as_double) == (True, 1)
        assert success.data_points[0].start_time_unix_nano == 1_000
        assert collector.metrics["vllm:kv_cache_usage_perc"].gauge.data_points[0].as_double == 0.25


async def test_nothing_is_told_of_what_nobody_knows() -> None:
    with collecting() as collector:
        async with exporter(collector, Metrics()):
            pass
        assert "forebay_admitted" in collector.metrics
        assert "forebay_api_key_expiry_timestamp_seconds" not in collector.metrics  # NaN


@pytest.mark.parametrize("status", [429, 503])
async def test_what_a_busy_collector_did_not_take_is_sent_again(status: int) -> None:
    with collecting() as collector:
        collector.answers = [status]
        async with exporter(collector, Metrics(), metrics_every_s=0) as sends:
            sends.add(spans(3))
            await sends.send()
            assert collector.spans == []
            await sends.send()
        assert [one.name for one in collector.spans] == ["s0", "s1", "s2"]


async def test_what_a_collector_refuses_for_good_is_dropped_and_counted() -> None:
    metrics = Metrics()
    with collecting() as collector:
        collector.answers = [400]
        async with exporter(collector, metrics, metrics_every_s=0) as sends:
            sends.add(spans(3))
        assert collector.spans == []
    assert b"forebay_spans_dropped_total 3.0" in metrics.render()


async def test_spans_that_nobody_takes_are_bounded_and_the_newest_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp, "MOST_SPANS", 5)
    metrics = Metrics()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = Collector(f"http://127.0.0.1:{closed.getsockname()[1]}")
    sends = exporter(nobody, metrics, metrics_every_s=0)
    sends.add(spans(8))
    await sends.send()
    sends.add(spans(2))
    assert [one.name for one in sends._spans] == ["s5", "s6", "s7", "s0", "s1"]
    text = metrics.render()
    assert b"forebay_spans_dropped_total 5.0" in text
    assert b'forebay_otlp_exports_total{outcome="failed",signal="traces"} 1.0' in text
    await sends._http.aclose()


async def test_without_an_endpoint_nothing_is_kept() -> None:
    async with telemetry(TelemetryTerms(), Metrics(), "p") as spans_go:
        assert spans_go is NO_SPANS
        assert not spans_go.on


def test_headers_are_read_and_bad_ones_are_not_repeated() -> None:
    assert read_headers("a=b, c=d=e ,") == {"a": "b", "c": "d=e"}
    with pytest.raises(SettingsError, match="otlp_headers: header 2") as fault:
        Settings(otlp_endpoint="http://127.0.0.1:4318", otlp_headers="a=b,secret").telemetry()
    assert "secret" not in str(fault.value)
