"""When a worker publishes what its engine says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from forebay.core.events import Finished, FinishReason, TokenDelta, Usage
from forebay.core.request import TaskId
from forebay.engine.errors import EngineBrokenError
from forebay.worker import worker as worker_module
from forebay.worker.worker import Worker, WorkerLimits

LIMITS = WorkerLimits(max_leases=6)


class Talkative:
    """An engine whose tokens come one after the other, each when the test says so."""

    ready = accepting = True

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    async def next_events(self) -> list[Any]:
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return [event]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asks for {name}")


def _publishing(engine: Talkative) -> tuple[Worker, list[str]]:
    """A worker, and the texts that it publishes, those of a round together."""
    nothing: Any = None
    worker = Worker(
        "w", queue=nothing, streams=nothing, blobs=nothing, engine=engine, limits=LIMITS
    )
    said: list[str] = []

    async def append(deltas: Any) -> None:
        said.append("".join(delta.text for delta in deltas))

    async def finish(outcomes: Any) -> None:
        assert outcomes == []  # of tasks that this worker does not hold

    worker.publisher = SimpleNamespace(append=append, finish=finish)  # type: ignore[assignment]
    return worker, said


async def test_tokens_that_come_close_together_are_published_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "PUBLISH_EVERY_S", 60.0)
    engine = Talkative()
    worker, said = _publishing(engine)
    publishing = asyncio.create_task(worker._publish_loop())
    end = Finished(TaskId("t"), "abcd", FinishReason.STOP, Usage(1, 4))
    for event in (TokenDelta(TaskId("t"), "a", 1), TokenDelta(TaskId("t"), "b", 1)):
        engine.events.put_nowait(event)
        await asyncio.sleep(0.01)
    assert said == ["a"]  # the first at once
    engine.events.put_nowait(TokenDelta(TaskId("t"), "c", 1))
    await asyncio.sleep(0.01)
    assert said == ["a"]
    engine.events.put_nowait(end)
    await asyncio.sleep(0.01)
    assert said == ["a", "bc"]  # an end does not wait
    publishing.cancel()


async def test_tokens_wait_for_others_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PUBLISH_EVERY_S", 0.05)
    engine = Talkative()
    worker, said = _publishing(engine)
    publishing = asyncio.create_task(worker._publish_loop())
    for text in "ab":
        engine.events.put_nowait(TokenDelta(TaskId("t"), text, 1))
        await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    assert said == ["a", "b"] or said == ["ab"]
    publishing.cancel()


async def test_what_was_said_before_the_engine_broke_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "PUBLISH_EVERY_S", 60.0)
    engine = Talkative()
    worker, said = _publishing(engine)
    for text in "ab":
        engine.events.put_nowait(TokenDelta(TaskId("t"), text, 1))
    engine.events.put_nowait(EngineBrokenError("broken"))
    with pytest.raises(EngineBrokenError):
        await worker._publish_loop()
    assert said == ["a", "b"]
