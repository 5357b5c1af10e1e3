"""What the engine says about the sequences it runs: one message type a fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from forebay.core.lifecycle import State
from forebay.core.request import TaskId


class FinishReason(StrEnum):
    """Why an answer ended. ``STOP``: the model or a stop string; ``LENGTH``: a token limit.

    ``CONTENT_FILTER``: a filter of the server that a worker stands in front of.
    """

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


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
class TokenLogprob:
    """A token's bytes and its log-probability, and those of the likeliest tokens at its place.

    The probabilities are the model's own: the log-softmax of its logits, before penalties,
    temperature, truncation and constraint.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()

    def to_json(self) -> list[Any]:
        """Return the compact JSON form. A byte is one character: half a letter must survive."""
        top = [[token.decode("latin-1"), logprob] for token, logprob in self.top]
        return [self.token.decode("latin-1"), self.logprob, top]

    @classmethod
    def from_json(cls, raw: Sequence[Any]) -> TokenLogprob:
        """Read the JSON form."""
        token, logprob, top = raw
        pairs = tuple((str(one).encode("latin-1"), float(value)) for one, value in top)
        return cls(str(token).encode("latin-1"), float(logprob), pairs)


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """New text of one answer to a task; ``index`` says which, where several were asked for.

    ``text`` never ends inside a character. ``logprobs``: of the tokens since the last delta.
    """

    task_id: TaskId
    text: str
    tokens: int
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one of a task's answers, and the log-probabilities of its tokens."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole answer. ``text`` is equal to its deltas joined, and so are the ``logprobs``."""

    text: str
    reason: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """A task has its answer; where several were asked for, ``others`` has those after the first.

    ``usage`` counts the prompt once, and the tokens of every answer.
    """

    task_id: TaskId
    text: str
    reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Choice, ...] = ()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Every answer, in the order of their indexes."""
        return (Choice(self.text, self.reason, self.logprobs), *self.others)


@dataclass(frozen=True, slots=True)
class Failed:
    """A task cannot be answered; ``code`` is one of ``forebay.core.errors``."""

    task_id: TaskId
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Returned:
    """A sequence came to nothing, and not by a fault of its request that is known.

    ``why``: a clause that clients may read. ``counts``: whether the delivery counts against the
    task; it does where the task itself may be the cause.
    """

    task_id: TaskId
    why: str
    counts: bool


@dataclass(frozen=True, slots=True)
class PhaseBegun:
    """A task has come to its next phase, one of ``forebay.core.lifecycle.PHASES``; once for each.

    ``at``: when, in seconds on this process's ``time.monotonic``.
    """

    task_id: TaskId
    phase: State
    at: float


EngineEvent = TokenDelta | PhaseBegun | Finished | Failed | Returned


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step did, and how long its parts took, in seconds.

    ``prefix_tokens`` and ``images_reused`` are what the prefix cache and the encoder cache spared:
    prompt tokens whose keys and values, and pictures whose embeddings, were there already.
    ``images_encoded``: pictures begun. ``vision_s``: spent on pictures in this step, encoding or
    waiting; ``vision_beside_s``: spent beside the steps on pictures that have come to their end.
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
    vision_beside_s: float = 0.0
    decoder_s: float = 0.0
    sample_s: float = 0.0
    step_s: float = 0.0
