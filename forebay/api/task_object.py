"""A task as its clients see it: in answers, in the last event of its stream, and in webhooks."""

from __future__ import annotations

from typing import Any

from forebay.api.answers import failure_of
from forebay.api.chat_objects import logprobs_object
from forebay.core.errors import error_for_code
from forebay.core.events import Choice
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.ports import TaskRecord


def task_object(record: TaskRecord, *, root: str = "") -> dict[str, Any]:
    """Return the task's JSON object.

    Every field is always there; one that does not apply is null. Times are seconds since the
    epoch. ``root``: what a proxy in front has put before every path.
    """
    return {
        "id": record.task_id,
        "object": "task",
        "status": record.state.value,
        "model": record.model,
        "priority": str(record.priority),
        **place_of(record.state, record.position, record.eta_s),
        "created_at": record.created_s,
        "started_at": record.leased_s,
        "finished_at": record.finished_s,
        "deliveries": record.deliveries,
        "seconds": seconds_of(record),
        "reuse": None if record.reuse is None else record.reuse.value,
        "output": _output(record),
        "usage": record.usage.to_dict() if record.usage else None,
        "error": error_of(record),
        "metadata": dict(record.metadata),
        "urls": task_urls(record.task_id, root),
    }


def place_of(state: State, ahead: int | None, eta_s: float | None) -> dict[str, Any]:
    """Return where a waiting task stands. ``position`` 1 is the next; null unless it waits."""
    if state is not State.QUEUED:
        ahead = eta_s = None
    return {
        "position": None if ahead is None else ahead + 1,
        "tasks_ahead": ahead,
        "eta_seconds": None if eta_s is None else round(eta_s, 1),
    }


def task_urls(task_id: TaskId, root: str = "") -> dict[str, str]:
    """Return where a task is asked for, followed, cancelled and read."""
    base = f"{root}/v1/tasks/{task_id}"
    return {
        "self": base,
        "events": f"{base}/events",
        "cancel": f"{base}/cancel",
        "result": f"{base}/result",
    }


def seconds_of(record: TaskRecord) -> dict[str, float | None]:
    """Return how long each part took, of the last delivery; null where it is not known (yet)."""
    begun = {
        "waiting": record.created_s,
        "encoding": record.encoding_s,
        "prefill": record.prefill_s,
        "decode": record.decode_s,
    }
    seconds: dict[str, float | None] = dict.fromkeys(begun)
    if record.leased_s is None:
        return seconds
    seconds["waiting"] = round(max(0.0, record.leased_s - record.created_s), 3)
    until = record.finished_s
    for phase in ("decode", "prefill", "encoding"):
        at = begun[phase]
        if at is None or at < record.leased_s:  # an earlier delivery's
            continue
        seconds[phase] = None if until is None else round(max(0.0, until - at), 3)
        until = at
    return seconds


def _output(record: TaskRecord) -> list[dict[str, Any]] | None:
    """Return every answer; null until, and unless, there is one."""
    if not record.state.final or record.text is None:
        return None
    first = Choice(record.text, record.finish_reason or "stop", record.logprobs)
    return [
        {
            "index": at,
            "text": one.text,
            "finish_reason": one.reason,
            "logprobs": logprobs_object(one.logprobs),
        }
        for at, one in enumerate((first, *record.others))
    ]


def error_of(record: TaskRecord) -> dict[str, Any] | None:
    """Return why a final task has no answer, by the codes of ``docs/errors.md``."""
    if not record.state.final or record.text is not None:
        return None
    code, message = failure_of(record)
    return {"code": code, "message": message, "retryable": error_for_code(code).retryable}
