"""From what the server keeps (strings) to what callers read (typed), and back."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from forebay.core.events import Choice, Piece, TokenLogprob, Usage
from forebay.core.lifecycle import State
from forebay.core.request import InferenceRequest, Priority, TaskId, Tenant, Terms
from forebay.queue.ports import (
    Fence,
    Lease,
    Outcome,
    StreamEntry,
    StreamId,
    StreamKind,
    StreamWrite,
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
        terms = Terms(Priority(int(priority)), deadline)
    except (KeyError, TypeError, ValueError):
        return None
    return Lease(task_id, fence, parsed, cost_total=cost, deliveries=deliveries, terms=terms)


def outcome_row(outcome: Outcome) -> tuple[TaskId, Fence, str, str, str, str, str, str]:
    """Return the arguments of ``finish`` for one outcome."""
    error = outcome.error or TaskError("", "")
    return (
        outcome.task_id,
        outcome.fence,
        outcome.text,
        ",".join([outcome.finish_reason, *(one.reason for one in outcome.others)]),
        _usage_to_text(outcome.usage),
        error.code,
        error.message,
        _more_to_text(outcome.logprobs, [(one.text, one.logprobs) for one in outcome.others]),
    )


def write_row(write: StreamWrite) -> tuple[TaskId, Fence, str, int, str]:
    """Return the arguments of ``append`` for one write."""
    others = [(one.index, one.text, one.logprobs) for one in write.others]
    more = _more_to_text(write.logprobs, others)
    return write.task_id, write.fence, write.text, write.tokens, more


def to_record(task_id: TaskId, fields: Mapping[str, str], position: int) -> TaskRecord:
    """Read a task's hash; ``position`` is negative unless the task waits."""
    code = fields.get("code")
    logprobs, others = _more_from_text(fields.get("more"))
    reasons = _reasons(fields.get("reason"))
    return TaskRecord(
        task_id=task_id,
        state=State(fields["state"]),
        model=fields["model"],
        tenant=Tenant(fields["tenant"]),
        priority=Priority(int(fields["priority"])),
        created_s=int(fields["created"]) / 1000,
        leased_s=_seconds(fields.get("leased")),
        finished_s=_seconds(fields.get("finished")),
        deliveries=int(fields["deliveries"]),
        text=fields.get("text"),
        finish_reason=reasons[0] if reasons else None,
        usage=_usage_from_text(fields.get("usage")),
        logprobs=logprobs,
        others=tuple(
            Choice(text, reason, _logprobs(raw))
            for (text, raw), reason in zip(others, reasons[1:], strict=True)
        ),
        error=TaskError(code, fields.get("message", "")) if code else None,
        position=position if position >= 0 else None,
    )


def to_entry(stream_id: str, fields: Mapping[str, str]) -> StreamEntry:
    """Read one entry of a token stream."""
    logprobs, others = _more_from_text(fields.get("m"))
    return StreamEntry(
        stream_id=StreamId(stream_id),
        kind=StreamKind(fields["k"]),
        text=fields.get("t", ""),
        tokens=int(fields.get("n", 0)),
        fields=_facts(fields),
        logprobs=logprobs,
        others=tuple(Piece(index, text, _logprobs(raw)) for index, text, raw in others),
    )


def _facts(fields: Mapping[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if "reason" in fields:
        usage = _usage_from_text(fields.get("usage"))
        reasons = _reasons(fields["reason"])
        facts = {"finish_reasons": reasons, "usage": usage.to_dict() if usage else None}
    elif "code" in fields:
        facts = {"code": fields["code"], "message": fields.get("message", "")}
    return facts


def _reasons(text: str | None) -> list[str]:
    """Read the reasons of all answers, which stand in one field: most tasks have one answer."""
    return text.split(",") if text else []


def _more_to_text(logprobs: Sequence[TokenLogprob], others: Sequence[tuple[Any, ...]]) -> str:
    """Return what only some tasks have; each of ``others`` ends with its log-probabilities."""
    if not logprobs and not others:
        return ""
    rows = [[*one[:-1], [each.to_json() for each in one[-1]]] for one in others]
    more = [[each.to_json() for each in logprobs], rows]
    return json.dumps(more, ensure_ascii=False, separators=(",", ":"))


def _more_from_text(text: str | None) -> tuple[tuple[TokenLogprob, ...], list[Any]]:
    if not text:
        return (), []
    logprobs, others = json.loads(text)
    return _logprobs(logprobs), others


def _logprobs(raw: Sequence[Any]) -> tuple[TokenLogprob, ...]:
    return tuple(map(TokenLogprob.from_json, raw))


def _usage_to_text(usage: Usage | None) -> str:
    return f"{usage.prompt_tokens},{usage.completion_tokens}" if usage else ""


def _usage_from_text(text: str | None) -> Usage | None:
    if not text:
        return None
    prompt, completion = text.split(",")
    return Usage(prompt_tokens=int(prompt), completion_tokens=int(completion))


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
