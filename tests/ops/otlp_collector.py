"""A collector that speaks OTLP over HTTP: it reads what comes with protobuf's own parser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True)
class SeenSpan:
    name: str
    trace_id: str
    span_id: str
    parent: str
    start_ns: int
    end_ns: int
    kind: int
    error: str
    attributes: dict[str, Any]
    state: str


@dataclass
class Collector:
    """``answers``: statuses to give before 200."""

    url: str = ""
    spans: list[SeenSpan] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def named(self, name: str) -> list[SeenSpan]:
        return sorted((one for one in self.spans if one.name == name), key=lambda one: one.start_ns)

    def take(self, path: str, body: bytes) -> int:
        if self.answers:
            return self.answers.pop(0)
        if path == "/v1/traces":
            self._take_spans(ExportTraceServiceRequest.FromString(body))
            return 200
        if path == "/v1/metrics":
            self._take_metrics(ExportMetricsServiceRequest.FromString(body))
            return 200
        return 404

    def _take_spans(self, told: ExportTraceServiceRequest) -> None:
        for part in told.resource_spans:
            self.resources.append(_values(part.resource.attributes))
            for one in (span for scope in part.scope_spans for span in scope.spans):
                seen = SeenSpan(
                    one.name, one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex(),
                    one.start_time_unix_nano, one.end_time_unix_nano, one.kind,
                    one.status.message, _values(one.attributes), one.trace_state,
                )  # fmt: skip
                self.spans.append(seen)

    def _take_metrics(self, told: ExportMetricsServiceRequest) -> None:
        for part in told.resource_metrics:
            self.resources.append(_values(part.resource.attributes))
            for scope in part.scope_metrics:
                self.metrics |= {one.name: one for one in scope.metrics}


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.headers.append(dict(self.headers))
            self.send_response(collector.take(self.path, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
