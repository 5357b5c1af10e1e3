"""From what the server keeps (strings) to what callers read (typed), and back."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from forebay.core.events import Usage
from forebay.core.lifecycle import State
from forebay.core.request import InferenceRequest, Priority, TaskId, Tenant, Terms
from forebay.queue.ports import (
    Fence,
    Lease,
    Outcome,
    StreamEntry,
    StreamId,
    StreamKind,
    TaskError,
    TaskRecord,
)


def request_to_json(request: InferenceRequest) -> str:
    """Return the form in which a request waits."""
    return json.dumps(request.to_dict(), ensure_ascii=False, separators=(",", ":"))


def to_lease(row: tuple[TaskId, Fence, int, int, str, str, int]) -> Lease | None:
    """Read one row of a claim; None when its request was not written by a release we can read."""
    task_id, fence, deliveries, cost, request, priority, left_ms = row
    try:
        parsed = InferenceRequest.from_dict(json.loads(request))
        deadline = math.inf if left_ms < 0 else time.monotonic() + left_ms / 1000
        terms = Terms(Priority(priority), deadline)
    except (KeyError, TypeError, ValueError):
        return None
    return Lease(task_id, fence, parsed, cost_total=cost, deliveries=deliveries, terms=terms)


def outcome_row(outcome: Outcome) -> tuple[TaskId, Fence, str, str, str, str, str]:
    """Return the arguments of ``finish`` for one outcome."""
    error = outcome.error or TaskError("", "")
    return (
        outcome.task_id,
        outcome.fence,
        outcome.text,
        str(outcome.finish_reason),
        _usage_to_text(outcome.usage),
        error.code,
        error.message,
    )


def to_record(task_id: TaskId, fields: Mapping[str, str], position: int) -> TaskRecord:
    """Read a task's hash; ``position`` is negative unless the task waits."""
    code = fields.get("code")
    return TaskRecord(
        task_id=task_id,
        state=State(fields["state"]),
        model=fields["model"],
        tenant=Tenant(fields["tenant"]),
        priority=Priority(fields["priority"]),
        created_s=int(fields["created"]) / 1000,
        leased_s=_seconds(fields.get("leased")),
        finished_s=_seconds(fields.get("finished")),
        deliveries=int(fields["deliveries"]),
        text=fields.get("text"),
        finish_reason=fields.get("reason"),
        usage=_usage_from_text(fields.get("usage")),
        error=TaskError(code, fields.get("message", "")) if code else None,
        position=position if position >= 0 else None,
    )


def to_entry(stream_id: str, fields: Mapping[str, str]) -> StreamEntry:
    """Read one entry of a token stream."""
    return StreamEntry(
        stream_id=StreamId(stream_id),
        kind=StreamKind(fields["k"]),
        text=fields.get("t", ""),
        tokens=int(fields.get("n", 0)),
        fields=_facts(fields),
    )


def _facts(fields: Mapping[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if "reason" in fields:
        usage = _usage_from_text(fields.get("usage"))
        facts = {"finish_reason": fields["reason"], "usage": usage.to_dict() if usage else None}
    elif "code" in fields:
        facts = {"code": fields["code"], "message": fields.get("message", "")}
    return facts


def _usage_to_text(usage: Usage | None) -> str:
    return f"{usage.prompt_tokens},{usage.completion_tokens}" if usage else ""


def _usage_from_text(text: str | None) -> Usage | None:
    if not text:
        return None
    prompt, completion = text.split(",")
    return Usage(prompt_tokens=int(prompt), completion_tokens=int(completion))


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
