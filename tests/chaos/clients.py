"""Clients on the public faces. What they do and see goes into the history, nothing else does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from tests.chaos import chat_face, queue_face, tasks_face
from tests.chaos.answers import Question
from tests.chaos.door import Doors
from tests.chaos.history import Asked

LONGEST_PAUSE_S = 1.5
ASKED_BY_MANY = 50
"""Of so many numbers in a row those with these last digits ask the same; it has a picture."""
LAST_DIGITS = (5, 6)


class Asking(Protocol):
    """Makes the question of a number under a name."""

    def __call__(self, name: str, number: int, *, with_picture: bool) -> Question: ...


class Client:
    """Asks one question after the other, each until it is taken and has an end.

    Which face a question is asked on follows from its number: the queue service's, chat streamed
    or plain, and where it is offered (``with_tasks``) the tasks API for half of them. A few chats
    are left by their clients, and a few questions are asked by many. ``question`` makes what is
    asked.
    """

    def __init__(self, doors: Doors, question: Asking, *, with_tasks: bool) -> None:
        self._doors = doors
        self._question = question
        self._with_tasks = with_tasks

    async def ask(self, number: int) -> None:
        """Have a question answered."""
        self._doors.next(number)
        if self._with_tasks and number % 2:
            await self._ask_as_task(number)
            return
        task, ended, attempt = None, False, 0
        while task is None:
            attempt += 1
            task, ended = await self._attempt(number, attempt)
            if task is None:
                await self._again(attempt)
        if not ended:
            await self._poll(task)

    async def _attempt(self, number: int, attempt: int) -> tuple[str | None, bool]:
        face = number % 20 if self._with_tasks else number * 2 % 20
        with_picture = face in (2, 8, 12, 16)
        question = self._posed(f"q{number}.{attempt}", number, with_picture=with_picture)
        if face in (8, 12, 16):
            return await queue_face.submit(self._doors, question)
        if face == 18:
            return await chat_face.ask_plainly(self._doors, question)
        hang_up = number % 50 in (6, 7)
        return await chat_face.ask_streamed(self._doors, question, hang_up=hang_up)

    async def _ask_as_task(self, number: int) -> None:
        """Ask under one key until it is taken: sent again it is the same task."""
        question = self._posed(f"q{number}", number, with_picture=number % 3 == 0)
        attempt = 0
        while (task := await tasks_face.submit(self._doors, question)) is None:
            attempt += 1
            await self._again(attempt)
        leave_every = 3 if number % 4 == 1 else 0
        await tasks_face.follow(self._doors, task, "own", leave_every=leave_every)

    def _posed(self, name: str, number: int, *, with_picture: bool) -> Question:
        """Return what is asked under a name, and note it."""
        if number % 10 in LAST_DIGITS:
            shared = number // ASKED_BY_MANY
            question = self._question(f"shared{shared}", shared, with_picture=True)
            question = replace(question, name=name)
        else:
            question = self._question(name, number, with_picture=with_picture)
        self._doors.history.note(Asked(question.name, question.prompt, question.answer))
        return question

    async def _again(self, attempt: int) -> None:
        self._doors.next()
        await asyncio.sleep(min(LONGEST_PAUSE_S, 0.2 * attempt))

    async def _poll(self, task: str) -> None:
        pause_s = 0.2
        while not await self.read(task):
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 1.5)

    async def read(self, task: str) -> bool:
        """Read a task's status; return whether it was told, and was an end."""
        read = tasks_face.read if self._with_tasks else queue_face.read
        return await read(self._doors, task)

    async def read_again(self, task: str) -> None:
        """Read an ended task once more on every face, its whole stream too."""
        await self.read(task)
        if self._with_tasks:
            await tasks_face.follow(self._doors, task, "late")
