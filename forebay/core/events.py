"""What the engine says about the sequences it runs: one message type a fact."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from forebay.core.request import TaskId


class FinishReason(StrEnum):
    """Why an answer ended. ``STOP``: the model or a stop string; ``LENGTH``: a token limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. ``prompt_tokens`` includes the visual ones."""

    prompt_tokens: int
    completion_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that OpenAI clients read."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """New text of one sequence. ``text`` never ends inside a character."""

    task_id: TaskId
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A sequence has its whole answer. ``text`` is all of it, equal to the deltas joined."""

    task_id: TaskId
    text: str
    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """A sequence cannot be answered; ``code`` is one of ``forebay.core.errors``."""

    task_id: TaskId
    code: str
    message: str


EngineEvent = TokenDelta | Finished | Failed


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step did, and how long its parts took, in seconds.

    ``prefix_tokens`` and ``images_reused`` are what the prefix cache and the encoder cache spared:
    prompt tokens whose keys and values, and pictures whose embeddings, were there already.
    """

    running: int = 0
    waiting: int = 0
    prefill_tokens: int = 0
    prefix_tokens: int = 0
    decode_tokens: int = 0
    images_encoded: int = 0
    images_reused: int = 0
    preempted: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    schedule_s: float = 0.0
    vision_s: float = 0.0
    decoder_s: float = 0.0
    sample_s: float = 0.0
    step_s: float = 0.0
