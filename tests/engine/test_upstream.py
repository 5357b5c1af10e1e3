"""The upstream engine against a server on a real socket that plays every part, the bad ones too."""

from __future__ import annotations

import asyncio
import time

import pytest

from forebay.core.events import (
    EngineEvent,
    Failed,
    Finished,
    FinishReason,
    PhaseBegun,
    Returned,
    TokenDelta,
    Usage,
)
from forebay.core.lifecycle import State
from forebay.core.request import TaskId, Terms
from forebay.engine.upstream import engine as upstream_engine
from forebay.engine.upstream import health
from forebay.engine.upstream.engine import UpstreamEngine, ask_once
from forebay.engine.upstream.faults import UpstreamFaultError
from forebay.engine.upstream.rounds import MOST_ROUNDS
from forebay.engine.upstream.transport import Address
from tests.engine.fake_upstream import (
    DONE,
    Exchange,
    FakeUpstream,
    Reply,
    cut_after,
    delta,
    event,
    refuse,
    say,
    silence,
    stream,
)
from tests.engine.upstream_rig import (
    KEY,
    WAIT_S,
    accepts,
    ended,
    ends,
    eventually,
    in_front_of,
    quicken,
    running,
    send,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


async def test_an_answer_comes_as_text_and_an_end_with_the_servers_count() -> None:
    server = FakeUpstream(chat=say("价格", "是12"))
    async with in_front_of(server) as engine:
        await send(engine, max_tokens=9, stop=("x",))
        events = await ends(engine)
    run = TaskId("r")
    assert events == [
        TokenDelta(run, "价格", 1),
        TokenDelta(run, "是12", 1),
        Finished(run, "价格是12", FinishReason.STOP, Usage(7, 2)),
    ]
    (exchange,) = server.asked
    assert exchange.path == "/v1/chat/completions"
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.asked["model"] == "the-model"
    assert (exchange.asked["max_tokens"], exchange.asked["stop"]) == (9, ["x"])


async def test_a_request_is_in_prefill_when_it_is_sent_and_decodes_from_its_first_token() -> None:
    server = FakeUpstream(chat=say("a", "b", "c"))
    events: list[EngineEvent] = []
    async with in_front_of(server) as engine:
        before = time.monotonic()
        await send(engine)
        async with asyncio.timeout(WAIT_S):
            while not any(isinstance(one, Finished) for one in events):
                events += await engine.next_events()
    begun = [one for one in events if isinstance(one, PhaseBegun)]
    assert [one.phase for one in begun] == [State.PREFILL, State.DECODE]
    assert before <= begun[0].at <= begun[1].at <= time.monotonic()
    assert isinstance(events[events.index(begun[1]) + 1], TokenDelta)


async def test_it_is_ready_only_after_a_real_answer_about_a_picture() -> None:
    server = FakeUpstream(warm_up=refuse(503))
    async with server.listening(), running(server.url) as engine:
        await eventually(lambda: any(one.path.endswith("completions") for one in server.seen))
        assert not engine.ready
        assert not engine.accepting
        server.warm_up = say("w")
        await accepts(engine)
    asked = next(one.asked for one in server.seen if one.path.endswith("completions"))
    assert asked["max_tokens"] == 1
    assert asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;")


async def test_a_server_that_refuses_pictures_is_never_ready_and_the_reason_is_told() -> None:
    server = FakeUpstream(warm_up=refuse(400, "this model takes no pictures"))
    async with server.listening():
        with pytest.raises(UpstreamFaultError, match="takes no pictures"):
            await ask_once(Address(server.url), WAIT_S)


async def test_of_several_models_one_must_be_chosen_but_names_of_one_model_are_one() -> None:
    server = FakeUpstream(models={"data": [{"id": "a"}, {"id": "b"}]})
    async with server.listening():
        with pytest.raises(UpstreamFaultError, match=r"2 models \(a, b\): set upstream_model"):
            await ask_once(Address(server.url), WAIT_S)
        assert await ask_once(Address(server.url, model="b"), WAIT_S) == "b"
        server.models = {"data": [{"id": "a", "root": "/x"}, {"id": "alias", "root": "/x"}]}
        assert await ask_once(Address(server.url), WAIT_S) == "a"
        server.models = {"nonsense": 1}
        with pytest.raises(UpstreamFaultError, match="no known form"):
            await ask_once(Address(server.url), WAIT_S)


@pytest.mark.parametrize("status", [204, 302, 400, 401, 404, 410, 501])
@pytest.mark.parametrize("models", [refuse(404), None])
async def test_a_server_without_an_open_health_is_served_and_looked_to_all_the_same(
    status: int, models: Reply | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_EVERY_S", 0.05)
    server = FakeUpstream(health=refuse(status))
    server.models = models or server.models
    async with in_front_of(server, model="the-model") as engine:
        assert isinstance(await ended(engine), Finished)
        looks = len(server.seen)
        await eventually(lambda: len(server.seen) > looks + 3)
        assert len(server.probes) == 1  # a look costs the server no answer
        assert engine.accepting


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_whose_health_says_that_it_is_not_well_is_not_ready(status: int) -> None:
    server = FakeUpstream(health=refuse(status))
    async with server.listening():
        with pytest.raises(UpstreamFaultError, match=f"HTTP {status}"):
            await ask_once(Address(server.url, model="m"), WAIT_S)
        assert not server.probes


async def test_a_busy_server_is_asked_again_when_it_says() -> None:
    async def busy_twice(exchange: Exchange) -> None:
        await (refuse(429, retry_after="1") if len(server.asked) < 3 else say("a"))(exchange)

    server = FakeUpstream(chat=busy_twice)
    async with in_front_of(server) as engine:
        await send(engine)
        await eventually(lambda: server.asked)
        await eventually(lambda: not engine.accepting)
        assert engine.ready
        assert isinstance((await ends(engine))[-1], Finished)
        await accepts(engine)
    first, second, third = (one.at for one in server.asked)
    assert min(second - first, third - second) >= 1.0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_stays_busy_gets_no_more_and_nothing_counts(status: int) -> None:
    server = FakeUpstream(chat=refuse(status))
    async with in_front_of(server) as engine:
        server.warm_up = refuse(status)
        assert await ended(engine) == Returned(
            TaskId("r"), f"the upstream answered HTTP {status}", counts=False
        )
        assert len(server.asked) == upstream_engine.TRIES
        await eventually(lambda: not engine.ready)
        server.warm_up, server.chat = say("w"), say("a")
        await accepts(engine)
        assert isinstance(await ended(engine), Finished)


async def test_a_request_that_is_always_refused_as_busy_while_others_are_answered_counts() -> None:
    """Some servers say 429 of a request that is larger than they ever take."""
    server = FakeUpstream(chat=refuse(429))
    async with in_front_of(server) as engine:
        rounds = []
        for _ in range(MOST_ROUNDS + 1):
            event = await ended(engine)
            assert isinstance(event, Returned)
            rounds.append(event.counts)
            await accepts(engine)
        assert rounds == [False] * MOST_ROUNDS + [True]
        server.chat = say("a")
        assert isinstance(await ended(engine), Finished)


@pytest.mark.parametrize("status", [502, 504])
async def test_what_a_gateway_sent_on_is_not_sent_again_by_the_same_delivery(status: int) -> None:
    server = FakeUpstream(chat=refuse(status))
    async with in_front_of(server) as engine:
        event = await ended(engine)
        assert isinstance(event, Returned)
        assert event.counts
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [500, 401, 404, 302])
async def test_a_refusal_counts_only_when_the_server_answers_others(status: int) -> None:
    server = FakeUpstream(chat=refuse(status))
    async with in_front_of(server) as engine:
        assert await ended(engine) == Returned(
            TaskId("r"), f"the upstream answered HTTP {status}", counts=True
        )
        assert engine.ready
        await accepts(engine)
        server.warm_up = refuse(status)
        event = await ended(engine)
        assert isinstance(event, Returned)
        assert not event.counts
        assert not engine.ready


async def test_the_requests_own_fault_fails_it_in_the_servers_words_without_secrets() -> None:
    words = f"max_tokens is wrong, see http://127.0.0.1:1/x with {KEY}"
    server = FakeUpstream(chat=refuse(400, words))
    async with in_front_of(server) as engine:
        event = await ended(engine)
        assert isinstance(event, Failed)
        assert event.code == "invalid_request"
        assert "max_tokens is wrong" in event.message
        assert KEY not in event.message
        assert "127.0.0.1" not in event.message
        server.chat = refuse(400, {"error": {"message": "m", "code": "context_length_exceeded"}})
        event = await ended(engine)
        assert isinstance(event, Failed)
        assert event.code == "prompt_too_long"
        assert engine.accepting


async def test_no_server_at_all_counts_against_nothing_and_is_waited_for() -> None:
    server = FakeUpstream()
    async with running("http://127.0.0.1:9") as engine:
        await asyncio.sleep(0.1)
        assert not engine.ready
    async with server.listening():
        engine = UpstreamEngine(Address(server.url), unpublished=64, answer_s=30)
        engine.start()
        await accepts(engine)
    try:
        event = await ended(engine)
        assert event == Returned(TaskId("r"), "the upstream cannot be reached", counts=False)
        await eventually(lambda: not engine.ready)
        async with server.listening():
            await accepts(engine)
            assert isinstance(await ended(engine), Finished)
    finally:
        await engine.stop()


async def test_an_idle_server_that_goes_away_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_EVERY_S", 0.05)
    server = FakeUpstream()
    async with server.listening():
        engine = UpstreamEngine(Address(server.url), unpublished=64, answer_s=30)
        engine.start()
        await accepts(engine)
    await eventually(lambda: not engine.ready)
    await engine.stop()


BROKEN = {
    "cut in mid-answer": cut_after(delta("a")),
    "cut before a word": cut_after(),
    "ended without a reason": stream(delta("a"), DONE),
    "ended without anything": stream(delta("a")),
    "silent": silence,
    "silent after a word": stream(delta("a"), ends=False),
    "not JSON": stream(delta("a"), b"data: {oops\n\n"),
    "an error in the stream": stream(delta("a"), event(error={"message": "no", "code": 500})),
    "a huge line": stream(delta("a"), b"data: " + b"x" * 2**21),
    "a page": lambda exchange: exchange.whole(200, b"<html>", content_type="text/html"),
    "not asked to stream": lambda exchange: exchange.whole(200, {"choices": []}),
    "an answer without end": stream(*[delta("x" * 9000)] * 50),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_an_answer_that_breaks_off_counts_and_its_server_is_asked_how_it_is(how: str) -> None:
    server = FakeUpstream(chat=BROKEN[how])
    async with in_front_of(server, idle_s=1) as engine:
        probes = len(server.seen)
        await send(engine, max_tokens=5)
        event = (await ends(engine))[-1]
        assert isinstance(event, Returned)
        assert event.counts
        assert event.why.startswith("the upstream")
        assert "127.0.0.1" not in event.why
        await accepts(engine)
        assert len(server.seen) > probes + 1
        server.chat = say("a")
        assert isinstance(await ended(engine), Finished)


async def test_comments_keep_an_answer_alive_but_not_for_ever() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.head()
        while not exchange.gone.is_set():
            await exchange.send(b": waiting\n\n")
            await asyncio.sleep(0.05)

    async with in_front_of(FakeUpstream(chat=endless), idle_s=0.5, answer_s=2) as engine:
        event = await ended(engine)
    assert event == Returned(TaskId("r"), "the upstream's answer took over 2 s", counts=True)


async def test_a_deadline_ends_an_answer_under_way_and_its_connection() -> None:
    server = FakeUpstream(chat=stream(delta("a"), ends=False))
    async with in_front_of(server) as engine:
        await send(engine, terms=Terms(deadline=time.monotonic() + 1))
        event = (await ends(engine))[-1]
        assert isinstance(event, Failed)
        assert event.code == "expired"
        async with asyncio.timeout(WAIT_S):
            await server.asked[0].gone.wait()
        assert engine.accepting


GARBAGE = b"data: garbage\n\n"


@pytest.mark.parametrize(
    "parts",
    [
        [delta("a"), delta("b", "stop")],
        [delta("a"), delta("b", "stop"), GARBAGE],
        [delta("a"), delta("b", "stop") + GARBAGE],
        [delta("a") + delta("b", "stop") + b"data: " + b"x" * 2**21],
    ],
    ids=["nothing", "garbage", "garbage in one piece", "a huge line"],
)
async def test_a_whole_answer_stands_whatever_follows_it(parts: list[bytes]) -> None:
    chat = stream(*parts, ends=False)
    async with in_front_of(FakeUpstream(chat=chat)) as engine:
        await send(engine)
        *said, event = await ends(engine)
        assert event == Finished(TaskId("r"), "ab", FinishReason.STOP, Usage(0, 2))
        assert "".join(one.text for one in said) == "ab"  # a client that streams has seen it all
        assert engine.accepting


async def test_an_abort_closes_the_connection_and_says_nothing() -> None:
    server = FakeUpstream(chat=stream(delta("a"), ends=False))
    async with in_front_of(server) as engine:
        await send(engine, "gone")
        while not any(isinstance(one, TokenDelta) for one in await engine.next_events()):
            pass
        engine.abort(TaskId("gone"))
        engine.abort(TaskId("gone"))
        async with asyncio.timeout(WAIT_S):
            await server.asked[0].gone.wait()
        assert engine.accepting
        server.chat = say("b")
        await send(engine, "next")
        assert {one.task_id for one in await ends(engine)} == {"next"}


async def test_a_stop_closes_every_connection() -> None:
    server = FakeUpstream(chat=stream(delta("a"), ends=False))
    async with server.listening():
        async with running(server.url) as engine:
            await accepts(engine)
            for name in "abc":
                await send(engine, name)
            await eventually(lambda: len(server.asked) == 3)
        async with asyncio.timeout(WAIT_S):
            for one in server.asked:
                await one.gone.wait()


async def test_what_nobody_publishes_is_not_read_either() -> None:
    sent = 0

    async def torrent(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head()
        for _ in range(4000):
            await exchange.send(delta("x" * 4000))
            sent += 1
        await exchange.send(delta("", "stop"))
        await exchange.end()

    async with in_front_of(FakeUpstream(chat=torrent), unpublished=4) as engine:
        await send(engine, max_tokens=100_000)
        await eventually(lambda: sent > 4)
        stalled = -1
        while stalled != sent:
            stalled = sent
            await asyncio.sleep(0.5)
        assert sent < 4000  # the socket's buffers are full, and the server is held up
        last = (await ends(engine))[-1]
    assert isinstance(last, Finished)
    assert len(last.text) == 4000 * 4000


async def test_many_answers_at_once_are_kept_apart() -> None:
    async def echo(exchange: Exchange) -> None:
        seed = exchange.asked["seed"]
        await say(*(f"{seed} " for _ in range(5)))(exchange)

    async with in_front_of(FakeUpstream(chat=echo)) as engine:
        for index in range(16):
            await send(engine, f"run-{index}", seed=index)
        events = await ends(engine, 16)
    for index in range(16):
        mine = [one for one in events if one.task_id == f"run-{index}"]
        assert "".join(one.text for one in mine if isinstance(one, TokenDelta)) == f"{index} " * 5
        assert isinstance(mine[-1], Finished)
        assert mine[-1].text == f"{index} " * 5


async def test_an_error_that_nobody_foresaw_breaks_the_engine_rather_than_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with in_front_of(FakeUpstream()) as engine:
        monkeypatch.setattr(upstream_engine, "AnswerReader", None)
        await send(engine)
        with pytest.raises(upstream_engine.EngineBrokenError, match="TypeError"):
            await ends(engine)
