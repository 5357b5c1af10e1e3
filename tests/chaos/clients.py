"""Clients on the public faces. What they do and see goes into the history, nothing else does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.chaos.answers import Question, size_of
from tests.chaos.history import (
    Accepted,
    Asked,
    Broke,
    End,
    Ended,
    Followed,
    Grew,
    History,
    HungUp,
    Read,
    Refused,
    Unknown,
    Unsure,
)

REFUSALS = frozenset(
    {"queue_full", "storage_full", "tenant_over_quota", "rate_limited", "invalid_request"}
)
"""Codes that say that nothing was taken in. Any other leaves a client unsure."""

TASK_ENDS = frozenset(
    {"cancelled", "expired", "dead_letter", "inference_failed", "upstream_failed", "answer_changed"}
)
"""Codes by which a stream says how the task ended; any other tells of the stream alone."""

LONGEST_PAUSE_S = 1.5
PATIENCE = httpx.Timeout(15.0, read=60.0)
"""Longer than any fault holds a door still: a client that goes would cancel its task."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event: its place, if it names one, and what it says."""

    place: str | None
    name: str
    data: str


async def sse_events(lines: AsyncIterator[str]) -> AsyncIterator[SseEvent]:
    """Yield whole events; one that breaks off is none."""
    place, name, data = None, "message", []
    async for line in lines:
        if not line:
            if data:
                yield SseEvent(place, name, "\n".join(data))
            place, name, data = None, "message", []
        elif line.startswith("id: "):
            place = line[4:]
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data.append(line[6:])


class Client:
    """Asks one question after the other, each until it is taken and has an end.

    ``doors`` are tried in turn: the next one after each reply that did not come.
    """

    def __init__(self, http: httpx.AsyncClient, doors: Sequence[str], history: History) -> None:
        self._http = http
        self._doors = doors
        self._history = history
        self._knocks = 0

    def _door(self) -> str:
        return self._doors[self._knocks % len(self._doors)]

    async def ask(self, number: int) -> None:
        """Have a question answered, on a face that follows from its number."""
        self._knocks = number
        attempt = 0
        while True:
            attempt += 1
            with_picture = number % 10 in (1, 4, 6, 8)
            question = Question(f"q{number}.{attempt}", size_of(number) if with_picture else None)
            self._history.note(Asked(question.name, question.prompt, question.answer))
            if number % 10 in (4, 6, 8):
                task, ended = await self._predict(question), False
            elif number % 10 == 9:
                task, ended = await self._plain(question), True
            else:
                task, ended = await self._streamed(question, hang_up=number % 50 == 7)
            if task is not None:
                if not ended:
                    await self.poll(task)
                return
            self._knocks += 1
            await asyncio.sleep(min(LONGEST_PAUSE_S, 0.2 * attempt))

    async def poll(self, task: str) -> None:
        """Read a task's status until it has an end."""
        pause_s = 0.2
        while not await self.read(task):
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 1.5)

    async def read(self, task: str) -> bool:
        """Read a task's status once; return whether it was told and was an end."""
        try:
            reply = await self._http.get(f"{self._door()}/result", params={"task_id": task})
        except httpx.HTTPError:
            self._knocks += 1
            return False
        if reply.status_code == httpx.codes.NOT_FOUND:
            self._history.note(Unknown(task))
            return True
        if reply.status_code != httpx.codes.OK:
            return False
        end = _end_of(reply.json())
        self._history.note(Read(task, end))
        return end is not None

    def _not_taken(self, question: Question, reply: httpx.Response) -> None:
        code = _code_of(reply)
        known = code in REFUSALS
        self._history.note(Refused(question.name, code) if known else Unsure(question.name, code))

    async def _predict(self, question: Question) -> str | None:
        try:
            reply = await self._http.post(
                f"{self._door()}/predict",
                data={"prompt": question.prompt},
                files={"image": ("p.jpg", question.picture(), "image/jpeg")},
            )
        except httpx.HTTPError as error:
            self._history.note(Unsure(question.name, repr(error)))
            return None
        if reply.status_code != httpx.codes.OK:
            self._not_taken(question, reply)
            return None
        task = str(reply.json()["task_id"])
        self._history.note(Accepted(question.name, task))
        return task

    async def _plain(self, question: Question) -> str | None:
        try:
            reply = await self._http.post(
                f"{self._door()}/v1/chat/completions", json=_chat_body(question)
            )
        except httpx.HTTPError as error:
            self._history.note(Unsure(question.name, repr(error)))
            return None
        if reply.status_code != httpx.codes.OK:
            self._not_taken(question, reply)
            return None
        body = reply.json()
        task = str(body["id"]).removeprefix("chatcmpl-")
        self._history.note(Accepted(question.name, task))
        self._history.note(Read(task, End(True, body["choices"][0]["message"]["content"])))
        return task

    async def _streamed(self, question: Question, *, hang_up: bool) -> tuple[str | None, bool]:
        """Follow an answer; return the task, if it was taken, and whether its end was told."""
        watch = _ChatWatch(question, self._history)
        try:
            async with self._http.stream(
                "POST",
                f"{self._door()}/v1/chat/completions",
                json=_chat_body(question) | {"stream": True},
            ) as reply:
                if reply.status_code != httpx.codes.OK:
                    await reply.aread()
                    self._not_taken(question, reply)
                    return None, False
                async for event in sse_events(reply.aiter_lines()):
                    watch.hear(event)
                    if hang_up and watch.deltas >= 2 and not watch.ended:
                        assert watch.task is not None
                        self._history.note(HungUp(watch.task))
                        break
        except httpx.HTTPError as error:
            watch.broke(repr(error))
        else:
            watch.broke("it ended without an end")
        return watch.task, watch.ended


class _ChatWatch:
    """Turns the events of one chat answer into history."""

    def __init__(self, question: Question, history: History) -> None:
        self.task: str | None = None
        self.ended = False
        self.deltas = 0
        self._question = question
        self._history = history

    def hear(self, event: SseEvent) -> None:
        if event.data == "[DONE]":
            return
        chunk = json.loads(event.data)
        if "error" in chunk:
            self._error(chunk["error"]["code"])
            return
        if self.task is None:
            self.task = str(chunk["id"]).removeprefix("chatcmpl-")
            self._history.note(Accepted(self._question.name, self.task))
            self._history.note(Followed(self.task, "chat"))
        choice = chunk["choices"][0]
        if text := choice["delta"].get("content"):
            self.deltas += 1
            self._history.note(Grew(self.task, "chat", text, event.place))
        if choice["finish_reason"] is not None:
            self._end(End(True, None))

    def _error(self, code: str) -> None:
        if self.task is not None and code in TASK_ENDS:
            self._end(End(False, code))
        else:
            self.broke(code)

    def _end(self, end: End) -> None:
        assert self.task is not None
        self.ended = True
        self._history.note(Ended(self.task, "chat", end))

    def broke(self, why: str) -> None:
        """Note a stream without an end; a client that was never told its task is unsure."""
        if self.ended:
            return
        if self.task is None:
            self._history.note(Unsure(self._question.name, why))
        else:
            self._history.note(Broke(self.task, "chat", why))


def _chat_body(question: Question) -> dict[str, Any]:
    content: Any = question.prompt
    if question.size is not None:
        url = f"data:image/jpeg;base64,{base64.b64encode(question.picture()).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": question.prompt},
        ]
    return {
        "model": "oracle",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 64,
        "temperature": 0,
    }


def _end_of(body: dict[str, Any]) -> End | None:
    match body["status"]:
        case "pending":
            return None
        case "success":
            return End(True, body["response"])
    return End(False, _CODES.get(body["error"], body["error"]))


_CODES = {"The task was cancelled.": "cancelled", "cancelled by its client": "cancelled"}
"""The queue service tells an error in words alone."""


def _code_of(reply: httpx.Response) -> str:
    try:
        body = reply.json()
    except ValueError:
        return f"HTTP {reply.status_code}"
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else body.get("code")
    return str(code or f"HTTP {reply.status_code}")
