"""A delivery as spans: the wait in the queue, the lease, and within it each phase of the engine.

Their parent is the span of the request at the door, whose place in the trace came with the task. A
task that is delivered again has a wait and a lease of each delivery, one after the other.
"""

from __future__ import annotations

import time

from forebay.core.lifecycle import State
from forebay.ops.spans import Attribute, Span, SpanKind
from forebay.worker.course import Course, course_phases

NAMES = {State.ENCODING: "encode", State.PREFILL: "prefill", State.DECODE: "decode"}


def delivery_spans(
    course: Course, now: float, wrote_s: float | None, error: str, worker: str
) -> list[Span]:
    """Return the spans of a delivery that ended ``now``, on the clock of ``time.monotonic``.

    ``wrote_s``: how long its result took to be written; None: it had none. Empty where the trace
    is none or is not to be kept.
    """
    door = course.lease.terms.trace
    if door is None or not door.sampled:
        return []
    wall = time.time() - time.monotonic()
    end = now if wrote_s is None else now - wrote_s
    about: dict[str, Attribute] = {
        "forebay.task_id": course.lease.task_id,
        "forebay.delivery": course.lease.deliveries,
    }
    lease = door.child()
    start = course.leased - course.lease.waited_s
    return [
        Span("queue", door.child(), door.span_id, wall + start, wall + course.leased,
             attributes=about),
        Span("lease", lease, door.span_id, wall + course.leased, wall + now, SpanKind.CONSUMER,
             error, {**about, "forebay.worker": worker, "forebay.tokens": course.tokens,
                     "gen_ai.request.model": course.lease.request.model}),
        *(Span(name, lease.child(), lease.span_id, wall + begin, wall + until)
          for name, begin, until in _parts(course, end, now, wrote_s)),
    ]  # fmt: skip


def _parts(
    course: Course, end: float, now: float, wrote_s: float | None
) -> list[tuple[str, float, float]]:
    """Return name, begin and end of each part of a lease, in their order."""
    begun = course.began
    parts = [("prepare", course.leased, end if begun is None else begun)]
    parts += [(NAMES[phase], at, until) for phase, at, until in course_phases(course, end)]
    return parts if wrote_s is None else [*parts, ("publish", end, now)]
