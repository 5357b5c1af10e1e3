"""The way out: a task's end as a record, or its text as it comes."""

from __future__ import annotations

from dataclasses import replace

from forebay.api.services import Services
from forebay.core.errors import AnswerChangedError, TaskNotFoundError, error_for_code
from forebay.core.events import Piece, TokenLogprob
from forebay.core.request import TaskId
from forebay.queue.ports import TaskRecord


async def final_record(services: Services, task_id: TaskId) -> TaskRecord:
    """Wait until the task has an answer and return it.

    Raises:
        ForebayError: the task's own error, or the queue became unreachable.
    """
    await await_end(services, task_id)
    record = await services.queue.get(task_id)
    if record is None:
        raise TaskNotFoundError(f"the task {task_id} is unknown or its result has expired")
    return answered(record)


async def await_end(services: Services, task_id: TaskId) -> None:
    """Return when the task has ended. Raises QueueUnavailableError, TaskNotFoundError."""
    async with services.streams.subscribe(task_id) as entries:
        async for entry in entries:
            if entry.kind.terminal:
                break


def answered(record: TaskRecord) -> TaskRecord:
    """Return a final record that has an answer.

    Raises:
        ForebayError: the task's own error.
    """
    if record.text is None:
        code, message = failure_of(record)
        raise error_for_code(code)(message)
    return record


def failure_of(record: TaskRecord) -> tuple[str, str]:
    """Return (code, message) of a task that ended without an answer."""
    if record.error is not None:
        return record.error.code, record.error.message
    return record.state.value, f"the task is {record.state.value}"


def elapsed_ms(record: TaskRecord) -> int:
    """Return the time in a worker's hands; the wait in the queue is not the model's."""
    began = record.leased_s if record.leased_s is not None else record.created_s
    ended = record.finished_s if record.finished_s is not None else began
    return max(0, round((ended - began) * 1000))


class ShownAnswer:
    """What a streaming client has seen of one answer, kept true across a redelivery.

    A second attempt starts over. Its text is held back while it repeats what was shown, so the
    client sees one answer, once.
    """

    def __init__(self) -> None:
        self._shown = ""
        self._told = 0  # log-probabilities
        self._replayed: str | None = None
        self._retold = 0

    def restart(self) -> None:
        """The answer starts over."""
        self._replayed, self._retold = "", 0

    def add(self, piece: Piece) -> Piece | None:
        """Return what is new to the client in the attempt's next piece, None where nothing is.

        Raises:
            AnswerChangedError: this attempt says something else than was shown.
        """
        text, logprobs = self._fresh_text(piece.text), self._fresh_logprobs(piece.logprobs)
        return replace(piece, text=text, logprobs=logprobs) if text or logprobs else None

    def finish(self) -> None:
        """The answer is whole.

        Raises:
            AnswerChangedError: the attempt ended before it had repeated all that was shown.
        """
        if self._replayed is not None and self._replayed != self._shown:
            raise AnswerChangedError("a worker died, and the second attempt's answer is shorter")

    def _fresh_text(self, text: str) -> str:
        if self._replayed is None:
            self._shown += text
            return text
        self._replayed += text
        if self._shown.startswith(self._replayed):
            return ""
        if not self._replayed.startswith(self._shown):
            raise AnswerChangedError("a worker died, and the second attempt answers differently")
        fresh = self._replayed[len(self._shown) :]
        self._shown, self._replayed = self._replayed, None
        return fresh

    def _fresh_logprobs(self, logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
        """Leave out as many as were told before; the same text has the same tokens."""
        known = min(len(logprobs), max(0, self._told - self._retold))
        self._retold += len(logprobs)
        self._told = max(self._told, self._retold)
        return logprobs[known:]
