"""Traces and metrics to a collector, where one is set; the parts that need the extra come then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import random

from forebay import __version__
from forebay.core.trace import Trace, new_trace
from forebay.ops.metric_book import MetricBook
from forebay.ops.spans import NO_SPANS, Spans

SERVICE = "forebay"


@dataclass(frozen=True, slots=True)
class TelemetryTerms:
    """Where to, and how much. ``endpoint``: of all signals; empty: nothing is sent.

    ``metrics_every_s``: 0: none. ``sample``: share of the traces that begin here that is sent.
    """

    endpoint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    metrics_every_s: float = 15.0
    sample: float = 1.0


@asynccontextmanager
async def telemetry(terms: TelemetryTerms, book: MetricBook, process: str) -> AsyncIterator[Spans]:
    """Send what the process does, under its name, while the block runs; yield where spans go."""
    if not terms.endpoint:
        yield NO_SPANS
        return
    # the only ways to protobuf: without a collector nobody needs it
    from forebay.ops.otlp import OtlpExporter, OtlpTerms  # noqa: PLC0415
    from forebay.ops.otlp_messages import Origin  # noqa: PLC0415

    to = OtlpTerms(terms.endpoint, terms.headers, terms.metrics_every_s)
    async with OtlpExporter(to, Origin(SERVICE, __version__, process), book) as exporter:
        yield exporter


def begin_trace(spans: Spans, sample: float) -> Trace:
    """Return a trace of our own, to be kept in ``sample`` of the cases where traces are sent."""
    return new_trace(sampled=spans.on and random() < sample)  # noqa: S311 - no secret
