"""A task as the server tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forebay.client.errors import ClientError, UnexpectedReplyError, mend_of
from forebay.core.lifecycle import State


@dataclass(frozen=True, slots=True)
class Output:
    """One answer. ``finish_reason``: ``stop``, ``length`` ... ``logprobs``: as chat has them."""

    index: int
    text: str
    finish_reason: str
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TaskFault:
    """Why a task has no answer."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Task:
    """A task, at the moment of the reply; the fields are told of in docs/tasks-api.md.

    Times are seconds since the epoch. ``output``: empty until there are answers. ``raw``: the
    object as it came, with fields that a later server may have.
    """

    id: str
    status: State
    model: str
    priority: str
    position: int | None
    tasks_ahead: int | None
    eta_seconds: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    deliveries: int
    seconds: Mapping[str, float | None]
    reuse: str | None
    output: tuple[Output, ...]
    usage: Mapping[str, Any] | None
    error: TaskFault | None
    metadata: Mapping[str, str]
    raw: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status.final

    @property
    def text(self) -> str:
        """The first answer.

        Raises:
            NoAnswerError: there is none.
        """
        return self.answered().output[0].text

    def answered(self) -> Task:
        """Return the task itself, which has an answer.

        Raises:
            NoAnswerError: it ended without one, or has not ended.
        """
        if self.output:
            return self
        if self.error is not None:
            fault = self.error
            raise NoAnswerError(self, fault.code, fault.message, retryable=fault.retryable)
        raise NoAnswerError(self, "not_ended", f"the task is {self.status}", retryable=True)


def task_of(raw: Any) -> Task:
    """Read a task's JSON object. Raises UnexpectedReplyError where it is none."""
    try:
        error = raw["error"]
        return Task(
            **{name: raw[name] for name in _AS_THEY_ARE},
            status=State(raw["status"]),
            output=tuple(_output(one) for one in raw["output"] or ()),
            error=error and TaskFault(error["code"], error["message"], error["retryable"]),
            raw=raw,
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise UnexpectedReplyError(f"the reply is no task: {type(problem).__name__}") from problem


_AS_THEY_ARE = (
    "id", "model", "priority", "position", "tasks_ahead", "eta_seconds", "created_at",
    "started_at", "finished_at", "deliveries", "seconds", "reuse", "usage", "metadata",
)  # fmt: skip


def _output(raw: Mapping[str, Any]) -> Output:
    return Output(raw["index"], raw["text"], raw["finish_reason"], raw.get("logprobs"))


class NoAnswerError(ClientError):
    """The task ended without an answer: it failed, expired, was cancelled. ``task``: all of it."""

    def __init__(self, task: Task, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message, code=code, mend=mend_of(code), retryable=retryable)
        self.task = task
