"""An answer as server-sent events, as its tokens come, in the form of OpenAI's chunks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Protocol

from forebay.api import sse
from forebay.api.answers import ShownAnswer
from forebay.api.error_forms import openai_form
from forebay.api.services import Services
from forebay.core.errors import ForebayError, error_for_code
from forebay.core.events import Piece
from forebay.core.request import TaskId
from forebay.queue.ports import StreamEntry, StreamKind


class AnswerChunks(Protocol):
    """The objects of one contract's stream. ``with_usage``: the last one counts tokens."""

    with_usage: bool

    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the chunks with new text."""
        ...

    def closing(self, index: int, finish_reason: str) -> list[dict[str, Any]]:
        """Return the chunks at an answer's end; the last says why it ended."""
        ...

    def usage(self, usage: dict[str, int] | None) -> dict[str, Any]:
        """Return the chunk that counts tokens; it has no choices."""
        ...


async def answer_events(
    services: Services,
    task_id: TaskId,
    chunks: AnswerChunks,
    opening: Iterable[dict[str, Any]],
    arrived: float,
) -> AsyncGenerator[bytes]:
    """Yield the events of a task; after the response has begun, an error is an event too.

    Args:
        services: what the door works with.
        task_id: the task.
        chunks: makes each event's object.
        opening: the objects that come before there is any text.
        arrived: when the request came, by ``time.monotonic``.
    """
    for one in opening:
        yield sse.event(one)
    try:
        async with aclosing(_answer_events(services, task_id, chunks, arrived)) as events:
            async for event in events:
                yield event
    except ForebayError as error:
        yield sse.event(openai_form(error))
    yield sse.DONE


async def _answer_events(
    services: Services, task_id: TaskId, chunks: AnswerChunks, arrived: float
) -> AsyncGenerator[bytes]:
    shown: defaultdict[int, ShownAnswer] = defaultdict(ShownAnswer)
    waiting = True
    async with services.streams.subscribe(task_id) as entries:
        async for entry in entries:
            if entry.kind is StreamKind.RESTART:
                for answer in shown.values():
                    answer.restart()
            elif entry.kind is StreamKind.DELTA:
                if waiting:
                    services.metrics.first_token_seconds.observe(time.monotonic() - arrived)
                    waiting = False
                for event in _delta_events(chunks, entry, shown):
                    yield event
            elif entry.kind is StreamKind.DONE:
                for answer in shown.values():
                    answer.finish()
                for event in _closing_events(chunks, entry.fields):
                    yield event
            else:
                raise stream_failure(entry.kind, entry.fields)


def _delta_events(
    chunks: AnswerChunks, entry: StreamEntry, shown: defaultdict[int, ShownAnswer]
) -> Iterator[bytes]:
    fresh = [new for piece in entry.pieces if (new := shown[piece.index].add(piece)) is not None]
    told = [one for piece in fresh for one in chunks.deltas(piece)]
    for at, one in enumerate(told, start=1):
        # only the last event of an entry names its place: who resumes there has seen all of it
        place = entry.stream_id if at == len(told) else None
        yield sse.event(one, stream_id=place)


def _closing_events(chunks: AnswerChunks, fields: Any) -> Iterator[bytes]:
    for index, reason in enumerate(fields["finish_reasons"]):
        for one in chunks.closing(index, reason):
            yield sse.event(one)
    if chunks.with_usage:
        yield sse.event(chunks.usage(fields.get("usage")))


def stream_failure(kind: StreamKind, fields: Any) -> ForebayError:
    """Return the error that a stream's last entry tells of."""
    if kind is StreamKind.CANCELLED:
        return error_for_code("cancelled")("the task was cancelled")
    return error_for_code(fields.get("code", ""))(fields.get("message") or "the task failed")
