"""``POST /v1/chat/completions``, streamed and plain."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.chaos.answers import MOST_TOKENS, Question
from tests.chaos.door import TASK_ENDS, Doors, SseEvent, reuse_of, sse_events
from tests.chaos.history import (
    Accepted,
    Broke,
    End,
    Ended,
    Followed,
    Grew,
    HungUp,
    Read,
    Unsure,
)

READER = "chat"
MODEL_NAME = "under-test"


async def ask_plainly(doors: Doors, question: Question) -> tuple[str | None, bool]:
    """Wait for the whole answer; return the task, if it was taken, and whether its end was told."""
    try:
        reply = await doors.http.post(f"{doors.url}/v1/chat/completions", json=chat_body(question))
    except httpx.HTTPError as error:
        doors.history.note(Unsure(question.name, repr(error)))
        return None, False
    if reply.status_code != httpx.codes.OK:
        doors.not_taken(question, reply)
        return None, False
    body = reply.json()
    task = _task_of(body)
    doors.history.note(Accepted(question.name, task, reuse_of(reply)))
    doors.history.note(Read(task, End(True, body["choices"][0]["message"]["content"])))
    return task, True


async def ask_streamed(
    doors: Doors, question: Question, *, hang_up: bool
) -> tuple[str | None, bool]:
    """Follow the answer as it comes; ``hang_up``: go in the middle of it."""
    watch = _Watch(doors, question)
    body = chat_body(question) | {"stream": True}
    try:
        async with doors.http.stream(
            "POST", f"{doors.url}/v1/chat/completions", json=body
        ) as reply:
            if reply.status_code != httpx.codes.OK:
                await reply.aread()
                doors.not_taken(question, reply)
                return None, False
            watch.reuse = reuse_of(reply)
            async for event in sse_events(reply):
                watch.hear(event)
                if hang_up and watch.hang_up():
                    break
    except httpx.HTTPError as error:
        watch.broke(repr(error))
    else:
        watch.broke("it closed without an end")
    return watch.task, watch.ended


class _Watch:
    """Turns the events of one answer into history."""

    def __init__(self, doors: Doors, question: Question) -> None:
        self.task: str | None = None
        self.reuse: str | None = None
        self.ended = False
        self._question = question
        self._note = doors.history.note
        self._deltas = 0

    def hear(self, event: SseEvent) -> None:
        if event.data == "[DONE]":
            return
        chunk = json.loads(event.data)
        if "error" in chunk:
            self._error(chunk["error"]["code"])
            return
        if self.task is None:
            self.task = _task_of(chunk)
            self._note(Accepted(self._question.name, self.task, self.reuse))
            self._note(Followed(self.task, READER))
        choice = chunk["choices"][0]
        if text := choice["delta"].get("content"):
            self._deltas += 1
            self._note(Grew(self.task, READER, text, event.place))
        if choice["finish_reason"] is not None:
            self._end(End(True, None))

    def hang_up(self) -> bool:
        """Whether now is the middle of the answer; then the client goes."""
        now = self._deltas >= 2 and not self.ended
        if now and self.task is not None:
            self._note(HungUp(self.task))
        return now

    def _error(self, code: str) -> None:
        if self.task is not None and code in TASK_ENDS:
            self._end(End(False, code))
        else:
            self.broke(code)

    def _end(self, end: End) -> None:
        assert self.task is not None
        self.ended = True
        self._note(Ended(self.task, READER, end))

    def broke(self, why: str) -> None:
        """Note a stream without an end; a client that was never told its task is unsure."""
        if self.ended:
            return
        if self.task is None:
            self._note(Unsure(self._question.name, why))
        else:
            self._note(Broke(self.task, READER, why))


def chat_body(question: Question) -> dict[str, Any]:
    content: Any = question.prompt
    if question.picture is not None:
        content = [
            {"type": "image_url", "image_url": {"url": question.data_url}},
            {"type": "text", "text": question.prompt},
        ]
    return {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": MOST_TOKENS,
        "temperature": 0,
    }


def _task_of(body: dict[str, Any]) -> str:
    return str(body["id"]).removeprefix("chatcmpl-")
