"""``POST /predict`` and ``GET /result``: the queue service's contract."""

from __future__ import annotations

from typing import Any

import httpx

from tests.chaos.answers import MOST_TOKENS, Question
from tests.chaos.door import Doors, reuse_of
from tests.chaos.history import Accepted, End, Read, Unknown, Unsure

_TOLD = {
    "The task was cancelled.": "cancelled",
    "cancelled by its client": "cancelled",
}
"""This contract tells an error in words alone."""


async def submit(doors: Doors, question: Question) -> tuple[str | None, bool]:
    """Send a picture with a question; return the task if it was taken. Its end is asked for."""
    assert question.picture is not None
    form = {"prompt": question.prompt, "max_tokens": str(MOST_TOKENS), "temperature": "0"}
    try:
        reply = await doors.http.post(
            f"{doors.url}/predict",
            data=form,
            files={"image": ("p.jpg", question.picture, "image/jpeg")},
        )
    except httpx.HTTPError as error:
        doors.history.note(Unsure(question.name, repr(error)))
        return None, False
    if reply.status_code != httpx.codes.OK:
        doors.not_taken(question, reply)
        return None, False
    task = str(reply.json()["task_id"])
    doors.history.note(Accepted(question.name, task, reuse_of(reply)))
    return task, False


async def read(doors: Doors, task: str) -> bool:
    """Read a task's status; return whether it was told, and was an end."""
    try:
        reply = await doors.http.get(f"{doors.url}/result", params={"task_id": task})
    except httpx.HTTPError:
        doors.next()
        return False
    if reply.status_code == httpx.codes.NOT_FOUND:
        doors.history.note(Unknown(task))
        return True
    if reply.status_code != httpx.codes.OK:
        return False
    end = _end_of(reply.json())
    doors.history.note(Read(task, end))
    return end is not None


def _end_of(body: dict[str, Any]) -> End | None:
    match body["status"]:
        case "pending":
            return None
        case "success":
            return End(True, body["response"])
    told = str(body["error"])
    dead = told.startswith("Delivered ")
    return End(False, "dead_letter" if dead else _TOLD.get(told, told))
