"""Spans and metrics to an OpenTelemetry collector, by OTLP over HTTP (the extra ``forebay[otlp]``).

Nothing waits for the collector: spans lie in a bounded list until the next round, which the oldest
ones leave when there are too many, and metrics are read when they are sent.
Source: https://opentelemetry.io/docs/specs/otlp/.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import httpx
import structlog

from forebay.core.background import Background
from forebay.ops.metric_book import MetricBook
from forebay.ops.otlp_messages import Origin, metrics_request, spans_request
from forebay.ops.spans import Span

log = structlog.get_logger("forebay.otlp")

MOST_SPANS: Final = 4_096
"""That wait to be sent; about a thousand requests' worth."""

A_ROUND: Final = 1_024
"""Spans in one message."""

SPANS_EVERY_S: Final = 2.0
ANSWER_S: Final = 5.0
LAST_S: Final = 2.0
"""For what is left when the process ends."""

TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
"""After these the specification has the same sent again; after others it would fail again."""


class _Message(Protocol):
    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        ...


@dataclass(frozen=True, slots=True)
class OtlpTerms:
    """Where to. ``endpoint``: of all signals, without ``/v1/...``. ``metrics_every_s``: 0: none."""

    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict)
    metrics_every_s: float = 15.0


class OtlpExporter:
    """An async context manager, and where spans go while it is entered."""

    on = True

    def __init__(self, terms: OtlpTerms, origin: Origin, book: MetricBook) -> None:
        self._terms = terms
        self._origin = origin
        self._book = book
        self._spans: deque[Span] = deque(maxlen=MOST_SPANS)
        self._metrics_due_s = time.monotonic() + terms.metrics_every_s
        self._http = httpx.AsyncClient(
            timeout=ANSWER_S,
            trust_env=False,
            headers={**terms.headers, "Content-Type": "application/x-protobuf"},
        )
        self._sending = Background("otlp", _failed)
        self._away = False

    def add(self, spans: Sequence[Span]) -> None:
        """Keep spans until they are sent; with too many the oldest go, and are counted."""
        over = len(self._spans) + len(spans) - MOST_SPANS
        if over > 0:
            self._book.spans_dropped.inc(over)
        self._spans.extend(spans)

    async def __aenter__(self) -> Self:
        self._sending.start(self._send_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._sending.stop()
        try:
            async with asyncio.timeout(LAST_S):
                await self.send(everything=True)
        except TimeoutError:
            log.warning("otlp_left_unsent", tasks=len(self._spans))
        await self._http.aclose()

    async def _send_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SPANS_EVERY_S)
            await self.send()

    async def send(self, *, everything: bool = False) -> None:
        """Send the spans that wait, and the metrics when it is time, or at any rate."""
        while self._spans:
            batch = [self._spans.popleft() for _ in range(min(len(self._spans), A_ROUND))]
            if not await self._post("traces", spans_request(batch, self._origin), len(batch)):
                self._keep(batch)
                break
        every_s = self._terms.metrics_every_s
        if every_s and (everything or time.monotonic() >= self._metrics_due_s):
            self._metrics_due_s = time.monotonic() + every_s
            await self._post("metrics", metrics_request(self._book.registry, self._origin), 0)

    def _keep(self, batch: Sequence[Span]) -> None:
        """Put spans back that were not taken, as far as newer ones have left room."""
        room = MOST_SPANS - len(self._spans)
        kept = batch[max(0, len(batch) - room) :]
        self._book.spans_dropped.inc(len(batch) - len(kept))
        self._spans.extendleft(reversed(kept))

    async def _post(self, signal: str, message: _Message, spans: int) -> bool:
        """Send a message; False where it is to be sent again."""
        url = f"{self._terms.endpoint.rstrip('/')}/v1/{signal}"
        try:
            answer = await self._http.post(url, content=message.SerializeToString())
        except httpx.HTTPError as error:
            self._note(signal, "failed", f"{type(error).__name__}: {error}")
            return False
        if answer.is_success:
            self._note(signal, "sent", "")
            return True
        self._note(signal, "refused", f"HTTP {answer.status_code}")
        if answer.status_code in TRY_AGAIN:
            return False
        self._book.spans_dropped.inc(spans)
        return True

    def _note(self, signal: str, outcome: str, why: str) -> None:
        """Count an export; a collector that is away is said once, not every round."""
        self._book.otlp_exports.labels(signal, outcome).inc()
        away = outcome != "sent"
        if away and not self._away:
            log.warning("otlp_not_sent", reason=why, during=signal)
        self._away = away


def _failed(error: BaseException) -> None:
    log.error("otlp_failed", exc_info=error)
