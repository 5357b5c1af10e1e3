"""When the upstream engine wants requests, and how long a request may wait for a word about it."""

from __future__ import annotations

import time

import pytest

from forebay.core.events import Failed, Finished, FinishReason, Returned, Usage
from forebay.core.request import TaskId, Terms
from forebay.engine.upstream import engine as upstream_engine
from tests.engine.fake_upstream import FakeUpstream, cut_after, delta, refuse, say, silence, stream
from tests.engine.upstream_rig import accepts, ended, ends, eventually, in_front_of, quicken, send


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


async def test_no_request_is_wanted_while_a_doubted_server_is_being_asked() -> None:
    """A server that hangs would otherwise be sent the whole line while one probe waits."""
    server = FakeUpstream(chat=cut_after(delta("a")))
    async with in_front_of(server) as engine:
        server.warm_up = silence
        probes = len(server.probes)
        assert isinstance(await ended(engine), Returned)
        await eventually(lambda: len(server.probes) > probes)
        assert not engine.accepting
        assert engine.ready  # it has not failed to answer yet
        server.warm_up = say("w")
        server.drop_all()
        await accepts(engine)


async def test_a_doubt_during_a_probe_needs_another_one() -> None:
    server = FakeUpstream(chat=silence)
    async with in_front_of(server) as engine:
        await send(engine, "a")
        await send(engine, "b")
        await eventually(lambda: len(server.asked) == 2)
        server.warm_up = silence
        probes = len(server.probes)
        server.asked[0].cut()
        await ends(engine)
        await eventually(lambda: len(server.probes) == probes + 1)
        server.asked[1].cut()
        await ends(engine)
        server.warm_up = say("w")
        answered = server.probes[-1]
        await say("w")(answered)
        answered.writer.close()
        await accepts(engine)
        assert len(server.probes) == probes + 2


async def test_the_deadline_holds_while_it_is_asked_whose_fault_a_refusal_was() -> None:
    server = FakeUpstream(chat=refuse(500))
    async with in_front_of(server, idle_s=5) as engine:
        server.warm_up = silence
        await send(engine, terms=Terms(deadline=time.monotonic() + 1))
        event = (await ends(engine))[-1]
        assert isinstance(event, Failed)
        assert event.code == "expired"


async def test_a_whole_answer_is_not_expired_by_the_wait_for_its_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_engine, "TRAILER_S", 60.0)
    server = FakeUpstream(chat=stream(delta("a"), delta("b", "stop"), ends=False))
    async with in_front_of(server) as engine:
        await send(engine, terms=Terms(deadline=time.monotonic() + 4))
        event = (await ends(engine))[-1]
    assert event == Finished(TaskId("r"), "ab", FinishReason.STOP, Usage(0, 2))
