"""Spans and metrics as messages of OTLP, which are protobuf's, of ``opentelemetry-proto``."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

from forebay.ops.metric_book import Fact, facts
from forebay.ops.spans import Attribute, Span, SpanKind

KINDS: Final = {
    SpanKind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
    SpanKind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    SpanKind.CONSUMER: trace_pb2.Span.SPAN_KIND_CONSUMER,
}
UNITS: Final = {
    "seconds": "s",
    "bytes": "By",
    "ratio": "1",
    "flag": "1",
    "celsius": "Cel",
    "watts": "W",
    "epoch": "s",
    "tokens_per_second": "{token}/s",
}
"""In the code of UCUM; what is counted is named in braces."""

OTEL_LABELS: Final = {
    "gen_ai_operation_name": "gen_ai.operation.name",
    "gen_ai_provider_name": "gen_ai.provider.name",
    "gen_ai_request_model": "gen_ai.request.model",
    "error_type": "error.type",
}
_CUMULATIVE: Final = pb.AGGREGATION_TEMPORALITY_CUMULATIVE


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends. ``instance``: a name that no other process has. ``since_ns``: of its counters."""

    service: str
    version: str
    instance: str
    since_ns: int = field(default_factory=time.time_ns)


def spans_request(spans: Sequence[Span], origin: Origin) -> ExportTraceServiceRequest:
    """Return spans as one message."""
    told = trace_pb2.ResourceSpans(
        resource=_resource(origin),
        scope_spans=[trace_pb2.ScopeSpans(scope=_scope(origin), spans=map(_span, spans))],
    )
    return ExportTraceServiceRequest(resource_spans=[told])


def _span(span: Span) -> trace_pb2.Span:
    status = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_UNSET)
    about = dict(span.attributes)
    if span.error:
        status = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=span.error)
        about["error.type"] = span.error
    return trace_pb2.Span(
        trace_id=bytes.fromhex(span.place.trace_id),
        span_id=bytes.fromhex(span.place.span_id),
        parent_span_id=b"" if span.parent is None else bytes.fromhex(span.parent),
        trace_state=span.place.state,
        flags=int(span.place.flags, 16),
        name=span.name,
        kind=KINDS[span.kind],
        start_time_unix_nano=_ns(span.start_s),
        end_time_unix_nano=max(_ns(span.start_s), _ns(span.end_s)),
        attributes=_attributes(about),
        status=status,
    )


def metrics_request(registry: CollectorRegistry, origin: Origin) -> ExportMetricsServiceRequest:
    """Return everything that a registry holds as one message."""
    now_ns = time.time_ns()
    metrics = [one for family in registry.collect() if (one := _metric(family, origin, now_ns))]
    told = pb.ResourceMetrics(
        resource=_resource(origin),
        scope_metrics=[pb.ScopeMetrics(scope=_scope(origin), metrics=metrics)],
    )
    return ExportMetricsServiceRequest(resource_metrics=[told])


def _metric(family: Metric, origin: Origin, now_ns: int) -> pb.Metric | None:
    """Return one metric; None where nothing is known of it, or it has no value now."""
    fact = facts().get(family.name) or facts().get(f"{family.name}_total")
    if fact is None:
        return None
    metric = pb.Metric(
        name=fact.otlp or family.name,
        description=family.documentation,
        unit=UNITS.get(fact.unit, f"{{{fact.unit.removesuffix('s')}}}"),
    )
    if family.type == "histogram":
        metric.histogram.aggregation_temporality = _CUMULATIVE
        points = _histogram_points(family, fact, origin.since_ns, now_ns)
        metric.histogram.data_points.extend(points)
        return metric if points else None
    numbers = _number_points(family, origin.since_ns, now_ns)
    if family.type == "counter":
        metric.sum.aggregation_temporality = _CUMULATIVE
        metric.sum.is_monotonic = True
        metric.sum.data_points.extend(numbers)
    else:
        metric.gauge.data_points.extend(numbers)
    return metric if numbers else None


def _number_points(family: Metric, since_ns: int, now_ns: int) -> list[pb.NumberDataPoint]:
    return [
        pb.NumberDataPoint(
            attributes=_attributes(one.labels),
            start_time_unix_nano=since_ns,
            time_unix_nano=now_ns,
            as_double=one.value,
        )
        for one in family.samples
        if not one.name.endswith("_created") and not math.isnan(one.value)
    ]


def _histogram_points(
    family: Metric, fact: Fact, since_ns: int, now_ns: int
) -> list[pb.HistogramDataPoint]:
    """Return a point for each series: Prometheus counts all up to a bound, OTLP those between."""
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = defaultdict(list)
    for one in family.samples:
        labels = {name: value for name, value in one.labels.items() if name != "le"}
        series[tuple(sorted(labels.items()))].append(one)
    points = []
    for labels_of, samples in series.items():
        up_to = [one.value for one in samples if one.name.endswith("_bucket")]
        between = [int(now - before) for before, now in zip([0.0, *up_to], up_to, strict=False)]
        points.append(
            pb.HistogramDataPoint(
                attributes=_attributes(dict(labels_of)),
                start_time_unix_nano=since_ns,
                time_unix_nano=now_ns,
                count=sum(between),
                sum=next(one.value for one in samples if one.name.endswith("_sum")),
                bucket_counts=between,
                explicit_bounds=fact.buckets,
            )
        )
    return points


def _resource(origin: Origin) -> Resource:
    about: Mapping[str, Attribute] = {
        "service.name": origin.service,
        "service.version": origin.version,
        "service.instance.id": origin.instance,
    }
    return Resource(attributes=_attributes(about))


def _scope(origin: Origin) -> InstrumentationScope:
    return InstrumentationScope(name="forebay", version=origin.version)


def _attributes(values: Mapping[str, Attribute]) -> Iterable[KeyValue]:
    return [
        KeyValue(key=OTEL_LABELS.get(name, name), value=_value(value))
        for name, value in values.items()
        if value != ""
    ]


def _value(value: Attribute) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(string_value=value)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
