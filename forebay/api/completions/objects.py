"""The JSON objects of a completion, whole or in chunks, as OpenAI clients read them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from forebay.api.chat_objects import LEAST_LOGPROB
from forebay.core.events import Choice, Piece, TokenLogprob
from forebay.core.request import TaskId
from forebay.queue.ports import TaskRecord


def text_completion(records: Sequence[TaskRecord]) -> dict[str, Any]:
    """Return the answers to all prompts, each prompt's together. Every record must have one."""
    choices = [
        choice
        for record in records
        for choice in (
            Choice(record.text or "", record.finish_reason or "stop", record.logprobs),
            *record.others,
        )
    ]
    first = records[0]
    return {
        "id": _object_id(first.task_id),
        "object": "text_completion",
        "created": int(first.created_s),
        "model": first.model,
        "choices": [_choice(at, one) for at, one in enumerate(choices)],
        "usage": _usage(records),
        "system_fingerprint": None,
    }


def _usage(records: Sequence[TaskRecord]) -> dict[str, int]:
    told = [record.usage for record in records if record.usage is not None]
    prompt = sum(usage.prompt_tokens for usage in told)
    answer = sum(usage.completion_tokens for usage in told)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    return {
        "index": index,
        "text": choice.text,
        "logprobs": logprobs_lists(choice.logprobs, 0),
        "finish_reason": choice.reason,
    }


def logprobs_lists(told: Sequence[TokenLogprob], offset: int) -> dict[str, Any] | None:
    """Return tokens' log-probabilities as completions have them, None where there are none.

    ``offset``: characters of the answer before the first of them. A token that is a part of a
    character only counts as the characters that it is shown as.
    """
    if not told:
        return None
    tokens = [_text(one.token) for one in told]
    offsets = [offset]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    return {
        "tokens": tokens,
        "token_logprobs": [_bounded(one.logprob) for one in told],
        "top_logprobs": [
            {_text(token): _bounded(logprob) for token, logprob in one.top} for one in told
        ],
        "text_offset": offsets,
    }


def _text(token: bytes) -> str:
    return token.decode(errors="replace")


def _bounded(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


class TextChunks:
    """Makes the chunks of one streamed completion."""

    def __init__(self, task_id: TaskId, model: str, *, with_usage: bool) -> None:
        self.with_usage = with_usage
        self._shown: defaultdict[int, int] = defaultdict(int)
        self._base: dict[str, Any] = {
            "id": _object_id(task_id),
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": None,
        }
        if with_usage:  # every chunk names it then, and only the last one fills it
            self._base["usage"] = None

    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the chunks with new text."""
        logprobs = logprobs_lists(piece.logprobs, self._shown[piece.index])
        self._shown[piece.index] += sum(len(_text(one.token)) for one in piece.logprobs)
        return [self._chunk(piece.index, piece.text, logprobs, None)]

    def closing(self, index: int, finish_reason: str) -> list[dict[str, Any]]:
        """Return the chunks at an answer's end; the last says why it ended."""
        return [self._chunk(index, "", None, finish_reason)]

    def usage(self, usage: dict[str, int] | None) -> dict[str, Any]:
        """Return the chunk that counts tokens; it has no choices."""
        return {**self._base, "choices": [], "usage": usage}

    def _chunk(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {**self._base, "choices": [choice]}


def _object_id(task_id: TaskId) -> str:
    return f"cmpl-{task_id}"
