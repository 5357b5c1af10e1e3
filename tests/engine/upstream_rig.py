"""The upstream engine with a fake server behind it, as the tests of both drive them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from forebay.core.events import EngineEvent, PhaseBegun, TokenDelta
from forebay.core.request import (
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    Terms,
    TextPart,
)
from forebay.engine.upstream import engine as upstream_engine
from forebay.engine.upstream import health
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.engine.upstream.transport import Address
from tests.engine.fake_upstream import FakeUpstream

WAIT_S = 60
"""Bounds every wait; far above what any takes, because test machines are shared."""

KEY = "sk-secret-1"
REQUEST = InferenceRequest("ours", (Message(Role.USER, (TextPart("hello"),)),))


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten every pause of the engine."""
    monkeypatch.setattr(upstream_engine, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(upstream_engine, "TRAILER_S", 0.3)
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(health, "LONGEST_PAUSE_S", 0.1)


@asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[UpstreamEngine]:
    limits = {"unpublished": 64, "answer_s": 30.0}
    limits |= {name: options.pop(name) for name in limits.keys() & options.keys()}
    engine = UpstreamEngine(Address(url, api_key=KEY, **options), **limits)
    engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def in_front_of(server: FakeUpstream, **options: Any) -> AsyncIterator[UpstreamEngine]:
    async with server.listening(), running(server.url, **options) as engine:
        await accepts(engine)
        yield engine


async def accepts(engine: UpstreamEngine) -> None:
    await engine.wait_accepting(WAIT_S)
    assert engine.ready
    assert engine.accepting


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - a server's state has no event of ours
            await asyncio.sleep(0.01)


async def send(
    engine: UpstreamEngine, name: str = "r", terms: Terms | None = None, **sampling: Any
) -> None:
    run = TaskId(name)
    asked = InferenceRequest(REQUEST.model, REQUEST.messages, SamplingParams(**sampling))
    engine.add(run, await engine.prepare(run, asked, {}, terms or Terms()))


async def ends(engine: UpstreamEngine, count: int = 1) -> list[EngineEvent]:
    """Return the events until ``count`` requests have ended, but for the phases they came to."""
    events: list[EngineEvent] = []
    async with asyncio.timeout(WAIT_S):
        while sum(not isinstance(one, TokenDelta) for one in events) < count:
            events += [one for one in await engine.next_events() if not isinstance(one, PhaseBegun)]
    return events


async def ended(engine: UpstreamEngine, **sampling: Any) -> EngineEvent:
    await send(engine, **sampling)
    return (await ends(engine))[-1]
