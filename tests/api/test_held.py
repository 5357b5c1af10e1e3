"""What requests are said to hold is what they do hold: measured by the interpreter itself."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from forebay.admission.held import HeldBytes
from forebay.api.chat_form import chat_ask, read_chat_form
from forebay.api.middleware.body_limit import BodyLimitMiddleware, read_parsed
from forebay.api.question import QuestionForm, read_question
from forebay.api.services import DoorSettings
from forebay.api.task_form import read_task
from forebay.core.errors import DoorFullError
from forebay.core.neighbours import Neighbours, shared_counts
from tests.hostile.attack import post_parts

MIB = 2**20
PIECE = 65_536
SLACK = 1.15
"""Objects around the bytes."""


class Watched(HeldBytes):
    """Remembers the most that was held."""

    def __init__(self, most: int = 0) -> None:
        self.peak = 0
        super().__init__(most)

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, size: int) -> None:
        self._now = size
        self.peak = max(size, self.peak)


async def measured(
    body: bytes, kind: str, read: Callable[[Request], Awaitable[Any]], **headers: str
) -> tuple[int, int, int]:
    """Return the most that was held in truth, the most that was counted, and what is at the end."""
    held = Watched()
    pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
    del body

    async def receive() -> Message:
        piece = bytes(bytearray(pieces.pop(0)))  # as if it had just come
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tracemalloc.start()
        try:
            kept = await read(Request(scope, receive))
            now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        found.append((peak, held.peak, now))
        del kept

    named = {"content-type": kind, **headers}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "path": "/v1/x", "headers": raw, "query_string": b"prompt=x"}
    found: list[tuple[int, int, int]] = []
    await BodyLimitMiddleware(app, 64 * MIB, held, 60)(scope, receive, _nowhere)
    assert held.now == 0
    return found[0]


async def _nowhere(message: Message) -> None:
    del message


def conversation(prompt: str, size: int) -> bytes:
    url = "data:image/png;base64," + base64.b64encode(os.urandom(size)).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    form = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    return json.dumps(form, ensure_ascii=False).encode()


async def as_chat(request: Request) -> Any:
    form, body = await read_parsed(request, read_chat_form)
    return form, body, await chat_ask(form, DoorSettings())


async def as_task(request: Request) -> Any:
    return await read_task(request, DoorSettings(), most_images=4)


async def as_question(request: Request) -> Any:
    return await read_question(request, QuestionForm)


@pytest.mark.parametrize("prompt", ["What?", "多少钱?", "🙂"], ids=["narrow", "wide", "widest"])
@pytest.mark.parametrize("read", [as_chat, as_task])
async def test_a_picture_in_json_counts_as_every_copy_of_it(prompt: str, read) -> None:
    body = conversation(prompt, 6 * MIB)
    size = len(body)
    peak, counted, kept = await measured(body, "application/json", read)
    assert peak <= counted * SLACK
    assert kept <= 4 * size * SLACK, "what stays is counted four times"
    assert counted <= 9 * size


@pytest.mark.parametrize("key", [{}, {"idempotency-key": "k"}], ids=["", "key"])
@pytest.mark.parametrize("read", [as_question, as_task])
@pytest.mark.parametrize("size", [MIB // 2, 6 * MIB])
async def test_a_file_in_a_form_counts_as_every_copy_of_it(read, key, size) -> None:
    whole = post_parts("/x", [("prompt", None, b"x"), ("image", "a.png", os.urandom(size))])
    head, _, body = whole.partition(b"\r\n\r\n")
    kind = head.decode().partition("Content-Type: ")[2].partition("\r\n")[0]
    peak, counted, _ = await measured(body, kind, read, **key)
    assert peak <= counted * SLACK + MIB
    assert counted <= 4 * size


async def test_a_body_that_is_the_picture_counts_once_and_while_it_is_joined_twice() -> None:
    size = 6 * MIB
    peak, counted, kept = await measured(os.urandom(size), "image/png", as_question)
    assert peak <= counted * SLACK
    assert counted == 2 * size
    assert kept <= size * SLACK


def test_the_bytes_that_a_neighbour_holds_count_too() -> None:
    with shared_counts(2) as file:
        here, there = (HeldBytes(1000, Neighbours(file.fileno(), row, 2)) for row in range(2))
        with there.hold() as other, here.hold() as own:
            other.grow_to(600)
            with pytest.raises(DoorFullError, match="hold 600 bytes at present, 500 more"):
                own.grow_to(500)
            own.grow_to(400)
            assert (here.now, here.in_all, there.in_all) == (400, 1000, 1000)
            other.shrink_to(100)
            own.grow_to(900)
        assert (here.in_all, there.in_all) == (0, 0)


def test_one_alone_is_let_in_whatever_it_takes_and_beside_others_it_is_not() -> None:
    held = HeldBytes(1000)
    with held.hold() as alone:
        alone.grow_to(600)
        alone.grow_by_copies(1200)
        assert (alone.bytes, held.now) == (1000, 1000)
        alone.shrink_to(600)
        with held.hold() as other:
            other.grow_to(300)
            with pytest.raises(DoorFullError):
                other.grow_by_copies(300)
            assert held.now == 900
    assert held.now == 0
