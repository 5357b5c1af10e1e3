"""An API process that lives and answers nobody is ended; one that refuses is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from forebay.worker import door_watch
from forebay.worker.door_watch import end_when_deaf

REFUSAL = b"HTTP/1.1 503 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Door:
    """In place of a child process."""

    pid = 1

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.asked = 0

    async def abort(self, reason: str) -> None:
        assert reason == "silent"
        self.ended.set()


@asynccontextmanager
async def watched(answer: bytes | None) -> AsyncIterator[Door]:
    """Watch a door that says ``answer`` and closes, or for None holds every line in silence."""
    door = Door()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door.asked += 1
        await reader.readline()
        if answer is None:
            await reader.read()
        writer.write(answer or b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    watching = asyncio.create_task(end_when_deaf(door, url, deaf_s=0.5))
    try:
        yield door
    finally:
        watching.cancel()
        server.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_watch, "ASK_EVERY_S", 0.05)
    monkeypatch.setattr(door_watch, "ANSWER_S", 0.2)


async def test_one_that_holds_every_line_in_silence_is_ended() -> None:
    async with watched(None) as door:
        await asyncio.wait_for(door.ended.wait(), 30)


@pytest.mark.parametrize("answer", [REFUSAL, b"", b"nonsense\r\n\r\n"])
async def test_one_that_refuses_closes_or_talks_nonsense_is_left_alone(answer: bytes) -> None:
    async with watched(answer) as door:
        async with asyncio.timeout(30):
            while door.asked < 30:  # noqa: ASYNC110 - the watcher asks by the clock
                await asyncio.sleep(0.05)
        assert not door.ended.is_set()
