"""The JSON objects of a chat answer, whole or in chunks, as OpenAI clients read them."""

from __future__ import annotations

import time
from typing import Any

from forebay.core.request import TaskId
from forebay.queue.ports import TaskRecord


def completion(record: TaskRecord) -> dict[str, Any]:
    """Return a whole answer."""
    return {
        "id": _object_id(record.task_id),
        "object": "chat.completion",
        "created": int(record.created_s),
        "model": record.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": record.text, "refusal": None},
                "logprobs": None,
                "finish_reason": record.finish_reason or "stop",
            }
        ],
        "usage": record.usage.to_dict() if record.usage else None,
        "system_fingerprint": None,
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

    def opening(self) -> dict[str, Any]:
        """Return the first chunk: who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def delta(self, text: str) -> dict[str, Any]:
        """Return a chunk with new text."""
        return self._chunk({"content": text})

    def closing(self, finish_reason: str) -> dict[str, Any]:
        """Return the chunk that says why the answer ended."""
        return self._chunk({}, finish_reason)

    def usage(self, usage: dict[str, int] | None) -> dict[str, Any]:
        """Return the chunk that counts tokens; it has no choices."""
        return {**self._base, "choices": [], "usage": usage}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._base, "choices": [choice]}


def _object_id(task_id: TaskId) -> str:
    return f"chatcmpl-{task_id}"
