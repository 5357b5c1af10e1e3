"""A response as server-sent events, from its beginning or from after any of them.

An event's number says how far the answer has come, in characters, and not how many events there
were: a second delivery cuts the same text into other pieces. Numbers rise, with gaps.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Final

from forebay.api import sse
from forebay.api.answers import ShownAnswer
from forebay.api.error_forms import told_to_clients
from forebay.api.responses.objects import response_object
from forebay.api.responses.output import Output, Step
from forebay.api.responses.tools_form import use_of
from forebay.api.services import Services
from forebay.core.errors import AnswerChangedError, ForebayError, TaskNotFoundError
from forebay.core.events import Piece
from forebay.queue.ports import StreamEntry, StreamKind, TaskRecord
from forebay.queue.responses import ResponseRecord

_CREATED, _QUEUED, _BEGUN = range(3)
NOTHING: Final = -1
"""The number before the first."""


async def response_events(
    services: Services, kept: ResponseRecord, record: TaskRecord, after: int = NOTHING
) -> AsyncGenerator[bytes]:
    """Yield the events that follow number ``after``; a failure is an event too."""
    story = _Story(kept, record, after)
    for event in story.opening():
        yield event
    try:
        async with aclosing(_told(services, story)) as events:
            async for event in events:
                yield event
    except ForebayError as error:
        yield story.broken(error)


async def _told(services: Services, story: _Story) -> AsyncGenerator[bytes]:
    task_id = story.record.task_id
    async with services.streams.subscribe(task_id) as entries:
        async for entry in entries:
            for event in story.heard(entry):
                yield event
    record = await services.queue.get(task_id)
    if record is None:
        raise TaskNotFoundError("the result has expired")
    for event in story.ended(record):
        yield event


class _Story:
    """What one client is told of one response, in order."""

    def __init__(self, kept: ResponseRecord, record: TaskRecord, after: int) -> None:
        self.record = record
        self._kept = kept
        self._after = after
        self._number = NOTHING
        self._output = Output(record.task_id, use_of(kept.terms))
        self._answer = ShownAnswer()
        self._text = ""

    def opening(self) -> Iterator[bytes]:
        """It was made, and may wait."""
        status = "queued" if self._kept.background else "in_progress"
        yield from self._of_response(_CREATED, "response.created", status)
        if self._kept.background:
            yield from self._of_response(_QUEUED, "response.queued", status)
        else:
            yield from self._begin()

    def heard(self, entry: StreamEntry) -> Iterator[bytes]:
        """Tell of an entry of the task's stream; its end is told by ``ended``."""
        if entry.kind is StreamKind.RESTART:
            self._answer.restart()
        elif entry.kind is StreamKind.DELTA:
            yield from self._begin()
            for piece in entry.pieces:
                fresh = self._answer.add(piece)
                if fresh is not None:
                    yield from self._delta(fresh)
        elif entry.kind is StreamKind.DONE:
            self._answer.finish()

    def ended(self, record: TaskRecord) -> Iterator[bytes]:
        """Tell how it came out."""
        if record.text is None:
            yield from self._failed(record)
            return
        if not record.text.startswith(self._text):
            raise AnswerChangedError("the answer is another one than was shown")
        yield from self._begin()
        if rest := record.text[len(self._text) :]:  # of an answer that was there already
            yield from self._delta(Piece(0, rest))
        whole = response_object(record, self._kept.terms)
        yield from self._tell(self._output.finish(whole["status"]))
        number, name = self._number + 1, f"response.{whole['status']}"
        yield from self._event(number, name, {"response": whole})

    def broken(self, error: ForebayError) -> bytes:
        """Tell that the stream ends before the response does."""
        told = {"code": error.code, "message": told_to_clients(error), "param": error.param}
        return self._last("error", **told)

    def _failed(self, record: TaskRecord) -> Iterator[bytes]:
        # clients know of no event of a cancellation: the status says so
        yield self._last("response.failed", response=response_object(record, self._kept.terms))

    def _begin(self) -> Iterator[bytes]:
        if self._number >= _BEGUN:
            return
        yield from self._of_response(_BEGUN, "response.in_progress", "in_progress")
        yield from self._tell(self._output.begin())

    def _delta(self, piece: Piece) -> Iterator[bytes]:
        self._text += piece.text
        yield from self._tell(self._output.feed(piece.text, piece.logprobs))

    def _tell(self, steps: Iterable[Step]) -> Iterator[bytes]:
        for step in steps:
            seen = max(0, self._after - self._number)  # of this text, by who comes back
            fields = step.fields
            if step.delta is not None:
                fields = {**fields, "delta": step.delta[seen:]}
                if seen and "logprobs" in fields:
                    fields["logprobs"] = []
            yield from self._event(self._number + step.length, step.name, fields)

    def _of_response(self, number: int, name: str, status: str) -> Iterator[bytes]:
        told = response_object(self.record, self._kept.terms, status=status)
        yield from self._event(number, name, {"response": told})

    def _event(self, number: int, name: str, fields: dict[str, Any]) -> Iterator[bytes]:
        self._number = number
        if number > self._after:
            yield sse.event({"type": name, "sequence_number": number, **fields}, name=name)

    def _last(self, name: str, **fields: Any) -> bytes:
        """Return the event that every client must hear, whatever it has heard before."""
        number = max(self._number, self._after) + 1
        return sse.event({"type": name, "sequence_number": number, **fields}, name=name)
