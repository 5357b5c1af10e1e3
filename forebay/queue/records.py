"""From what the server keeps (strings) to what callers read (typed), and back."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forebay.core.errors import AnswerTooLargeError
from forebay.core.events import Choice, Piece, TokenLogprob, Usage
from forebay.core.lifecycle import State
from forebay.core.request import InferenceRequest, Priority, TaskId, Tenant, Terms
from forebay.core.trace import Trace, read_trace
from forebay.queue.groups import Group
from forebay.queue.library_door import DepthRow, Description, GlanceRow, Verdict
from forebay.queue.library_worker import LeaseRow
from forebay.queue.ports import (
    Enqueued,
    Fence,
    Glimpse,
    Lease,
    Outcome,
    PastAttempt,
    QueueDepth,
    Reuse,
    StreamEntry,
    StreamId,
    StreamKind,
    StreamWrite,
    TaskError,
    TaskRecord,
)

# json.dumps with arguments builds a new encoder for every call, which costs as much as it encodes.
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


MOST_LOGPROB_BYTES: Final = 8 * 2**20
"""Log-probabilities that are kept with a task. What the door lets a client ask for takes under half
of it; a server elsewhere may send more than it was asked for."""

_NUMBER_BYTES: Final = 24

OutcomeRow = tuple[TaskId, Fence, str, str, str, str, str, str]
"""Task, fence, text, reason, usage, code, message, more: what ``finish`` is given of each."""


def request_to_json(request: InferenceRequest, trace: Trace | None = None) -> str:
    """Return the form in which a request waits, with the trace that it belongs to."""
    form = request.to_dict()
    if trace is not None:
        form["trace"] = str(trace)
        if trace.state:
            form["trace_state"] = trace.state
    return to_json(form)


def to_lease(row: LeaseRow) -> Lease | None:
    """Read one row of a claim; None when its request was not written by a release we can read."""
    try:
        form = json.loads(row.request)
        parsed = InferenceRequest.from_dict(form)
        trace = read_trace(form.get("trace", ""), form.get("trace_state", ""))
        deadline = math.inf if row.left_ms < 0 else time.monotonic() + row.left_ms / 1000
        terms = Terms(Priority(row.priority), deadline, trace)
    except (KeyError, TypeError, ValueError):
        return None
    return Lease(
        row.task_id,
        row.fence,
        parsed,
        cost_total=row.cost,
        deliveries=row.deliveries,
        terms=terms,
        age_s=row.age_ms / 1000,
        waited_s=row.waited_ms / 1000,
    )


def to_enqueued(verdict: Verdict) -> Enqueued:
    """Read what the library said of a task that it has."""
    return Enqueued(
        TaskId(verdict.where),
        position=max(0, verdict.position),
        eta_s=_known(verdict.eta_ms),
        fresh=verdict.fresh,
        reuse=Reuse(verdict.reuse) if verdict.reuse else None,
    )


def to_depth(row: DepthRow) -> QueueDepth:
    """Read what the library said of the queue's size."""
    return QueueDepth(
        row.waiting,
        row.leased,
        row.dead,
        row.tokens,
        oldest_s=row.oldest_ms / 1000,
        delayed=row.delayed,
        drained=bool(row.drained),
        wait_s=_known(row.wait_ms),
        eta_error_s=_known(row.eta_error_ms),
        tokens_per_s=_known(row.tokens_per_1000_s),
        ended=row.ended,
    )


def bounded(outcome: Outcome, max_bytes: int) -> Outcome:
    """Return the outcome, or the failure that takes its place when it is too large to be kept."""
    size = sum(len(text.encode()) for text in (outcome.text, *(one.text for one in outcome.others)))
    beside = _logprobs_size(outcome)
    if size > max_bytes:
        message = f"The answer has {size} bytes, the bound is {max_bytes}."
    elif beside > MOST_LOGPROB_BYTES:
        message = f"Its log-probabilities take {beside} bytes, the bound is {MOST_LOGPROB_BYTES}."
    else:
        return outcome
    error = TaskError(AnswerTooLargeError.code, message)
    return Outcome(outcome.task_id, outcome.fence, error=error)


def _logprobs_size(outcome: Outcome) -> int:
    """Return about how many bytes the log-probabilities of all answers take, numbers included."""
    return sum(
        len(token) + _NUMBER_BYTES
        for logprobs in (outcome.logprobs, *(one.logprobs for one in outcome.others))
        for one in logprobs
        for token in (one.token, *(token for token, _ in one.top))
    )


def outcome_row(outcome: Outcome) -> OutcomeRow:
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


def write_row(write: StreamWrite) -> tuple[TaskId, Fence, str, int, str, str]:
    """Return the arguments of ``append`` for one write."""
    others = [(one.index, one.text, one.logprobs) for one in write.others]
    more = _more_to_text(write.logprobs, others)
    phases = ",".join(f"{state}:{max(0, round(ago * 1000))}" for state, ago in write.phases)
    return write.task_id, write.fence, write.text, write.tokens, more, phases


def to_record(task_id: TaskId, found: Description) -> TaskRecord:
    """Read what the library said of one task."""
    fields = found.fields
    code = fields.get("code")
    logprobs, others = _more_from_text(fields.get("more"))
    reasons = _reasons(fields.get("reason"))
    state = State(fields["state"])
    return TaskRecord(
        task_id=task_id,
        state=state,
        model=fields["model"],
        tenant=Tenant(fields["tenant"]),
        priority=Priority(int(fields["priority"])),
        created_s=_created_s(fields),
        leased_s=_seconds(fields.get("leased")),
        finished_s=_seconds(fields.get("finished")),
        deliveries=int(fields.get("deliveries", 0)),
        text=found.text if state is State.FINISHED else None,
        finish_reason=reasons[0] if reasons else None,
        usage=_usage_from_text(fields.get("usage")),
        logprobs=logprobs,
        others=tuple(
            Choice(text, reason, _logprobs(raw))
            for (text, raw), reason in zip(others, reasons[1:], strict=True)
        ),
        error=TaskError(code, fields.get("message", "")) if code else None,
        position=found.position if found.position >= 0 else None,
        eta_s=_known(found.eta_ms),
        encoding_s=_seconds(fields.get("encoding")),
        prefill_s=_seconds(fields.get("prefill")),
        decode_s=_seconds(fields.get("decode")),
        reuse=Reuse(fields["reuse"]) if "reuse" in fields else None,
        metadata=json.loads(fields["metadata"]) if "metadata" in fields else {},
        worker=fields.get("worker"),
        cost=int(float(fields.get("cost", 0))),
        past=_past(fields.get("past")),
        group=Group(fields["group"]) if "group" in fields else None,
    )


def to_glimpse(row: GlanceRow) -> Glimpse:
    """Read what the library said of where a task stands."""
    position = row.position if row.position >= 0 else None
    return Glimpse(State(row.state), position, eta_s=_known(row.eta_ms))


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
    return to_json(more)


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


def _past(text: str | None) -> tuple[PastAttempt, ...]:
    rows = json.loads(text) if text else []
    return tuple(
        PastAttempt(int(attempt), str(worker), str(why), *(_at(one) for one in times))
        for attempt, worker, why, *times in rows
    )


def _at(milliseconds: float) -> Any:
    """Read a time for which 0 means that it never came."""
    return milliseconds / 1000 if milliseconds else None


def _known(milliseconds: int) -> float | None:
    """Read a time for which -1 means that nobody knows it."""
    return milliseconds / 1000 if milliseconds >= 0 else None


def _created_s(fields: Mapping[str, str]) -> float:
    """Return when a task was created; where that is not said, it is when it took its place."""
    return int(fields["created"]) / 1000 if "created" in fields else int(fields["seq"]) / 1e6


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
