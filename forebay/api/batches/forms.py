"""The JSON of batches: as a whole, and line by line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from forebay.api.error_forms import openai_form
from forebay.core.errors import ForebayError
from forebay.queue.batches import BatchRecord

CANCELLED: Final = "batch_cancelled"
EXPIRED: Final = "batch_expired"
UNANSWERED: Final = {
    CANCELLED: "the batch was cancelled before this request had an answer",
    EXPIRED: "the batch's time ran out before this request had an answer",
}

_TIMES: Final = (
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
)  # fmt: skip


def batch_object(batch: BatchRecord, model: str) -> dict[str, Any]:
    """Return a batch as OpenAI clients read it."""
    faults = {"object": "list", "data": list(batch.faults)} if batch.faults else None
    return {
        "id": batch.batch_id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": model,
        "errors": faults,
        "input_file_id": batch.input_id,
        "completion_window": batch.window,
        "status": batch.told_status.value,
        "output_file_id": batch.output_id,
        "error_file_id": batch.errors_id,
        "created_at": batch.created_s,
        "expires_at": batch.expires_s,
        **{f"{name}_at": batch.at.get(name) for name in _TIMES},
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": batch.usage,
        "metadata": batch.metadata,
    }


def answer_line(line_id: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the output file."""
    return _line(line_id, name, {"status_code": 200, "request_id": line_id, "body": body})


def refusal_line(line_id: str, name: str, error: ForebayError) -> dict[str, Any]:
    """Return a line of the error file, for a request that came to an error of its own."""
    response = {"status_code": error.status, "request_id": line_id, "body": openai_form(error)}
    return _line(line_id, name, response)


def unanswered_line(line_id: str, name: str, code: str) -> dict[str, Any]:
    """Return a line of the error file, for a request that had no answer when the batch ended."""
    return _line(line_id, name, None, {"code": code, "message": UNANSWERED[code]})


def _line(
    line_id: str, name: str, response: dict[str, Any] | None, error: dict[str, str] | None = None
) -> dict[str, Any]:
    return {"id": line_id, "custom_id": name, "response": response, "error": error}
