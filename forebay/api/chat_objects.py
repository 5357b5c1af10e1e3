"""The JSON objects of a chat answer, whole or in chunks, as OpenAI clients read them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from forebay.api.call_objects import read_calls
from forebay.core.events import Choice, Piece, TokenLogprob
from forebay.core.request import TaskId
from forebay.core.tools import ToolUse
from forebay.queue.ports import TaskRecord

LEAST_LOGPROB = -9999.0
"""JSON has no infinity; this is what OpenAI's documentation names for the unthinkable."""


def completion(record: TaskRecord, use: ToolUse | None = None) -> dict[str, Any]:
    """Return a whole answer. The record must have one. ``use``: functions that were on offer."""
    first = Choice(record.text or "", record.finish_reason or "stop", record.logprobs)
    return {
        "id": _object_id(record.task_id),
        "object": "chat.completion",
        "created": int(record.created_s),
        "model": record.model,
        "choices": [
            _choice(record.task_id, at, one, use) for at, one in enumerate((first, *record.others))
        ],
        "usage": record.usage.to_dict() if record.usage else None,
        "system_fingerprint": None,
    }


def _choice(task_id: TaskId, index: int, choice: Choice, use: ToolUse | None) -> dict[str, Any]:
    answer = {"content": choice.text}, choice.reason
    message, reason = answer if use is None else read_calls(choice, use, f"{task_id}_{index}")
    return {
        "index": index,
        "message": {"role": "assistant", **message, "refusal": None},
        "logprobs": logprobs_object(choice.logprobs),
        "finish_reason": reason,
    }


def logprobs_object(told: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """Return tokens' log-probabilities as a choice has them, None where there are none."""
    if not told:
        return None
    content = [
        {
            **_token(one.token, one.logprob),
            "top_logprobs": [_token(token, logprob) for token, logprob in one.top],
        }
        for one in told
    ]
    return {"content": content, "refusal": None}


def _token(token: bytes, logprob: float) -> dict[str, Any]:
    """Return a token as text, where it is text, and always as its bytes."""
    return {
        "token": token.decode(errors="replace"),
        "logprob": max(logprob, LEAST_LOGPROB),
        "bytes": list(token),
    }


class Chunks:
    """Makes the chunks of one streamed answer."""

    def __init__(self, task_id: TaskId, model: str, *, with_usage: bool) -> None:
        self.with_usage = with_usage
        self._base: dict[str, Any] = {
            "id": _object_id(task_id),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": None,
        }
        if with_usage:  # every chunk names it then, and only the last one fills it
            self._base["usage"] = None

    def opening(self, index: int) -> dict[str, Any]:
        """Return an answer's first chunk: who speaks."""
        return self.chunk(index, {"role": "assistant", "content": "", "refusal": None})

    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the chunks with new text."""
        return [self.chunk(piece.index, {"content": piece.text}, piece.logprobs)]

    def closing(self, index: int, finish_reason: str) -> list[dict[str, Any]]:
        """Return the chunks at an answer's end; the last says why it ended."""
        return [self.chunk(index, {}, finish_reason=finish_reason)]

    def usage(self, usage: dict[str, int] | None) -> dict[str, Any]:
        """Return the chunk that counts tokens; it has no choices."""
        return {**self._base, "choices": [], "usage": usage}

    def chunk(
        self,
        index: int,
        delta: dict[str, Any],
        told: Sequence[TokenLogprob] = (),
        *,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        """Return a chunk of one answer; ``told`` are log-probabilities of its tokens."""
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs_object(told),
            "finish_reason": finish_reason,
        }
        return {**self._base, "choices": [choice]}


def _object_id(task_id: TaskId) -> str:
    return f"chatcmpl-{task_id}"
