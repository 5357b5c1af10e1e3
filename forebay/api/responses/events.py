"""A response as server-sent events, from its beginning or from after any of them.

An event's number says how far the answer has come, in characters, and not how many events there
were: a second delivery cuts the same text into other pieces. Numbers rise, with gaps.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from forebay.api import sse
from forebay.api.answers import ShownAnswer
from forebay.api.chat_objects import logprobs_object
from forebay.api.error_forms import told_to_clients
from forebay.api.responses.objects import (
    item_id,
    message_item,
    response_object,
    text_part,
)
from forebay.api.services import Services
from forebay.core.errors import AnswerChangedError, ForebayError, TaskNotFoundError
from forebay.core.events import Piece
from forebay.queue.ports import StreamEntry, StreamKind, TaskRecord
from forebay.queue.responses import ResponseRecord

_CREATED, _QUEUED, _BEGUN, _ITEM, _PART = range(5)
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
        self._item = item_id(record.task_id)
        self._answer = ShownAnswer()
        self._text = ""
        self._held: Piece | None = None  # log-probabilities of tokens that have no text yet

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
        part, status = text_part(record), whole["status"]
        place = self._place()
        number = _PART + len(self._text)
        done = {"text": part["text"], "logprobs": part["logprobs"]}
        yield from self._event(number + 1, "response.output_text.done", **place, **done)
        yield from self._event(number + 2, "response.content_part.done", **place, part=part)
        item = message_item(record.task_id, status, part)
        yield from self._event(number + 3, "response.output_item.done", output_index=0, item=item)
        yield from self._event(number + 4, f"response.{status}", response=whole)

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
        item = message_item(self.record.task_id, "in_progress")
        yield from self._event(_ITEM, "response.output_item.added", output_index=0, item=item)
        yield from self._event(
            _PART, "response.content_part.added", **self._place(), part=text_part()
        )

    def _delta(self, piece: Piece) -> Iterator[bytes]:
        if self._held is not None:
            piece = replace(piece, logprobs=self._held.logprobs + piece.logprobs)
        self._held = None if piece.text else piece
        if not piece.text:
            return
        seen = max(0, self._after - _PART - len(self._text))  # of this piece, by who comes back
        self._text += piece.text
        told = logprobs_object(() if seen else piece.logprobs)
        yield from self._event(
            _PART + len(self._text),
            "response.output_text.delta",
            **self._place(),
            delta=piece.text[seen:],
            logprobs=told["content"] if told else [],
        )

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _of_response(self, number: int, name: str, status: str) -> Iterator[bytes]:
        told = response_object(self.record, self._kept.terms, status=status)
        yield from self._event(number, name, response=told)

    def _event(self, number: int, name: str, **fields: Any) -> Iterator[bytes]:
        self._number = number
        if number > self._after:
            yield sse.event({"type": name, "sequence_number": number, **fields}, name=name)

    def _last(self, name: str, **fields: Any) -> bytes:
        """Return the event that every client must hear, whatever it has heard before."""
        number = max(self._number, self._after) + 1
        return sse.event({"type": name, "sequence_number": number, **fields}, name=name)
