"""Spans: what was done for one request, from when to when, and within what."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from forebay.core.errors import ForebayError
from forebay.core.trace import Trace, current_trace

Attribute = str | int | float | bool


class SpanKind(StrEnum):
    """As OpenTelemetry has them: who is on the other side."""

    SERVER = "server"
    INTERNAL = "internal"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class Span:
    """One thing that was done. Times: seconds since the epoch. ``error``: a code; empty: none.

    ``place``: its trace and its own id. ``parent``: the id of the span that it is a part of.
    """

    name: str
    place: Trace
    parent: str | None
    start_s: float
    end_s: float
    kind: SpanKind = SpanKind.INTERNAL
    error: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


class Spans(Protocol):
    """Where spans go. Taking one never waits; what cannot be kept is dropped and counted."""

    @property
    def on(self) -> bool:
        """Whether anybody wants them."""
        ...

    def add(self, spans: Sequence[Span]) -> None:
        """Take spans that have ended."""
        ...


class _NoSpans:
    on = False

    def add(self, spans: Sequence[Span]) -> None:
        """Leave them."""


NO_SPANS: Final[Spans] = _NoSpans()


@contextmanager
def span_of(spans: Spans, name: str, **attributes: Attribute) -> Iterator[None]:
    """Note what the block did for the request under way, if its trace is to be kept."""
    trace = current_trace.get()
    if not spans.on or trace is None or not trace.sampled:
        yield
        return
    began, error = time.time(), ""
    try:
        yield
    except ForebayError as refusal:
        error = refusal.code
        raise
    finally:
        place = trace.child()
        spans.add(
            [Span(name, place, trace.span_id, began, time.time(), error=error,
                  attributes=attributes)]
        )  # fmt: skip
