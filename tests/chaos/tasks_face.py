"""``/v1/tasks``: submitted under a key, followed and resumed by the last id, read again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from tests.chaos.answers import Question
from tests.chaos.chat_face import chat_body
from tests.chaos.door import Doors, SseEvent, code_of, reuse_of, sse_events
from tests.chaos.history import (
    Accepted,
    Broke,
    End,
    Ended,
    Followed,
    Grew,
    Read,
    Restarted,
    Unknown,
    Unsure,
)

FINAL = frozenset({"finished", "failed", "cancelled", "expired", "dead"})
ENDS = frozenset({"done", "error", "cancelled"})


async def is_offered(doors: Doors) -> bool:
    """Whether this release has the tasks API. Raises httpx.HTTPError."""
    return code_of(await doors.http.get(f"{doors.url}/v1/tasks/none")) == "task_not_found"


async def submit(doors: Doors, question: Question) -> str | None:
    """Send a question under its name as the key; return the task if it was taken."""
    try:
        reply = await doors.http.post(
            f"{doors.url}/v1/tasks",
            json=chat_body(question),
            headers={"Idempotency-Key": question.name},
        )
    except httpx.HTTPError as error:
        doors.history.note(Unsure(question.name, repr(error)))
        return None
    if reply.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
        doors.not_taken(question, reply)
        return None
    task = str(reply.json()["id"])
    doors.history.note(Accepted(question.name, task, reuse_of(reply)))
    return task


async def follow(doors: Doors, task: str, reader: str, *, leave_every: int = 0) -> None:
    """Follow a task to its end, coming back with the last id whenever the stream breaks.

    ``leave_every``: break it oneself after so many pieces.
    """
    watch = _Watch(doors, task, reader, leave_every)
    while not watch.ended:
        try:
            await watch.listen()
        except httpx.HTTPError as error:
            watch.broke(repr(error))
            doors.next()
        if not watch.ended:
            await asyncio.sleep(0.2)


async def read(doors: Doors, task: str) -> bool:
    """Read a task's status; return whether it was told, and was an end."""
    try:
        reply = await doors.http.get(f"{doors.url}/v1/tasks/{task}")
    except httpx.HTTPError:
        doors.next()
        return False
    if reply.status_code == httpx.codes.NOT_FOUND:
        doors.history.note(Unknown(task))
        return True
    if reply.status_code != httpx.codes.OK:
        return False
    body = reply.json()
    end = _end_of(body) if body["status"] in FINAL else None
    doors.history.note(Read(task, end))
    return end is not None


class _Watch:
    """Turns the events of one task into history, over as many connections as it takes."""

    def __init__(self, doors: Doors, task: str, reader: str, leave_every: int) -> None:
        self.ended = False
        self._doors = doors
        self._note = doors.history.note
        self._names = (task, reader)
        self._leave_every = leave_every
        self._place: str | None = None

    async def listen(self) -> None:
        """Follow from the last place until the stream ends, breaks, or is left."""
        task, reader = self._names
        headers = {"Last-Event-ID": self._place} if self._place else {}
        url = f"{self._doors.url}/v1/tasks/{task}/events"
        async with self._doors.http.stream("GET", url, headers=headers) as reply:
            if reply.status_code == httpx.codes.NOT_FOUND:
                self._note(Unknown(task))
                self.ended = True
                return
            if reply.status_code != httpx.codes.OK:
                return  # not now: a later try may be answered
            self._note(Followed(task, reader, self._place))
            heard = 0
            async for event in sse_events(reply):
                self._hear(event)
                heard += event.name == "delta"
                if self._leave_every and heard >= self._leave_every and not self.ended:
                    self.broke("left by its reader")
                    return
        self.broke("it closed without an end")

    def _hear(self, event: SseEvent) -> None:
        task, reader = self._names
        self._place = event.place or self._place
        body = json.loads(event.data)
        if event.name == "delta":
            self._note(Grew(task, reader, body["text"], event.place))
        elif event.name == "restart":
            self._note(Restarted(task, reader, event.place))
        elif event.name in ENDS:
            self.ended = True
            self._note(Ended(task, reader, _end_of(body)))

    def broke(self, why: str) -> None:
        """Note a stream without an end."""
        if not self.ended:
            self._note(Broke(*self._names, why))


def _end_of(body: dict[str, Any]) -> End:
    if body["error"] is not None:
        return End(False, body["error"]["code"])
    return End(True, body["output"][0]["text"])
