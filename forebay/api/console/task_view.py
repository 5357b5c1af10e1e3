"""A task as administrators see it: its cost, where it stood, who had it. Never what it asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from forebay.api.task_object import error_of, place_of, seconds_of
from forebay.core.lifecycle import PHASES, State
from forebay.queue.ports import PastAttempt, TaskRecord

Entry = dict[str, Any]


def admin_task(record: TaskRecord) -> dict[str, Any]:
    """Return the task's JSON object. Times are seconds since the epoch."""
    place = place_of(record.state, record.position, record.eta_s)
    return {
        "id": record.task_id,
        "state": record.state.value,
        "tenant": record.tenant,
        "model": record.model,
        "priority": str(record.priority),
        "cost_tokens": record.cost,
        "created_at": record.created_s,
        "started_at": record.leased_s,
        "finished_at": record.finished_s,
        "deliveries": record.deliveries,
        "worker": record.worker,
        "seconds": seconds_of(record),
        "position": place["position"],
        "eta_seconds": place["eta_seconds"],
        "reuse": None if record.reuse is None else record.reuse.value,
        "usage": record.usage.to_dict() if record.usage else None,
        "error": error_of(record),
    }


def timeline(record: TaskRecord) -> list[Entry]:
    """Return what happened to the task, in order: each stage with its time, worker and delivery.

    A delivery that came to nothing ends in ``returned``, with the reason.
    """
    return list(_entries(record))


def _entries(record: TaskRecord) -> Iterator[Entry]:
    # the other times are whole milliseconds, and nothing is to come before its beginning
    created_s = math.floor(record.created_s * 1000) / 1000
    yield _entry("received", created_s)
    yield _entry("queued", created_s)
    for past in record.past:
        yield from _phases(past, past.worker, past.attempt)
        yield _entry("returned", past.returned_s, past.worker, past.attempt, past.why)
        yield _entry("queued", past.returned_s)
    if record.state is not State.QUEUED and _is_new(record):
        yield from _phases(record, record.worker, record.deliveries)
    if record.state.final:
        why = record.error.code if record.error else None
        yield _entry(record.state.value, record.finished_s, record.worker, record.deliveries, why)


def _is_new(record: TaskRecord) -> bool:
    """Whether the last lease is not one that came to nothing, and is told already."""
    if not record.past:
        return True
    last = record.past[-1]
    # by its number too: two leases may begin within one millisecond
    return (record.leased_s, record.deliveries, record.worker) != (
        last.leased_s,
        last.attempt,
        last.worker,
    )


def _phases(one: TaskRecord | PastAttempt, worker: str | None, attempt: int) -> Iterator[Entry]:
    if one.leased_s is None:
        return
    yield _entry("leased", one.leased_s, worker, attempt)
    for phase in PHASES:
        at_s = getattr(one, f"{phase.value}_s")
        if at_s is not None:
            yield _entry(phase.value, at_s, worker, attempt)


def _entry(
    stage: str,
    at_s: float | None,
    worker: str | None = None,
    attempt: int = 0,
    why: str | None = None,
) -> Entry:
    return {"stage": stage, "at": at_s, "worker": worker, "attempt": attempt, "why": why}
