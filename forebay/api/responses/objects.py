"""The JSON object of a response, at any moment of its life, as OpenAI clients read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.api.answers import failure_of
from forebay.api.responses.output import whole_output
from forebay.api.responses.tools_form import use_of
from forebay.api.usage import usage_object
from forebay.core.lifecycle import State
from forebay.queue.ports import TaskRecord
from forebay.queue.responses import PREFIX

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def response_object(
    record: TaskRecord, terms: Mapping[str, Any], *, status: str | None = None
) -> dict[str, Any]:
    """Return the object. ``status``: what an event says it was, before there was any output."""
    ended = record.state.final and status is None
    answered = ended and record.text is not None
    status = status or _status(record)
    return {
        "id": f"{PREFIX}{record.task_id}",
        "object": "response",
        "created_at": int(record.created_s),
        "completed_at": _completed_at(record) if status == "completed" else None,
        "status": status,
        "error": _error(record) if status == "failed" else None,
        "incomplete_details": _incomplete(record) if status == "incomplete" else None,
        "model": record.model,
        "output": _output(record, terms, status) if answered else [],
        "usage": _usage(record) if answered else None,
        "user": None,
        **terms,
    }


def _output(record: TaskRecord, terms: Mapping[str, Any], status: str) -> list[dict[str, Any]]:
    text, use = record.text or "", use_of(terms)
    return whole_output(record.task_id, use, text, record.logprobs, status)


def _status(record: TaskRecord) -> str:
    if record.state is State.QUEUED:
        return "queued"
    if not record.state.final:
        return "in_progress"
    if record.text is not None:
        return "incomplete" if record.finish_reason in _INCOMPLETE else "completed"
    return "cancelled" if record.state is State.CANCELLED else "failed"


def _completed_at(record: TaskRecord) -> int | None:
    return None if record.finished_s is None else int(record.finished_s)


def _incomplete(record: TaskRecord) -> dict[str, str]:
    return {"reason": _INCOMPLETE[record.finish_reason or ""]}


def _error(record: TaskRecord) -> dict[str, str]:
    code, message = failure_of(record)
    return {"code": code, "message": message}


def _usage(record: TaskRecord) -> dict[str, Any] | None:
    usage = record.usage
    if usage is None:
        return None
    return usage_object(usage.prompt_tokens, usage.completion_tokens)
