"""The client when the network and the server do what they do on bad days."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import urlsplit

import pytest

from forebay.admission.policy import Limits
from forebay.client import (
    BusyError,
    Client,
    Delta,
    Ended,
    NotFoundError,
    Queued,
    RefusedError,
    UnexpectedReplyError,
    UnreachableError,
)
from forebay.client import patience as patience_of
from tests.api.door import PROFILE, Door, eventually, open_door, working
from tests.api.test_task_events import finish, leased, say
from tests.chaos.proxy import FAIR, Proxy, Way, Weather
from tests.integration.stack import free_port
from tests.outbound.raw_server import RawServer, ok


@pytest.fixture
async def proxy(door: Door) -> AsyncIterator[Proxy]:
    async with Proxy(urlsplit(door.url).port or 0).listening() as proxy:
        yield proxy


@asynccontextmanager
async def through(proxy: Proxy, **more: float) -> AsyncIterator[Client]:
    async with Client(f"http://127.0.0.1:{proxy.port}", **{"patience_s": 20, **more}) as client:
        yield client


async def test_a_task_whose_reply_was_lost_is_sent_again_and_runs_once(door, proxy) -> None:
    proxy.change(Weather(cut_reply_after=20))
    async with through(proxy) as client:
        creating = asyncio.create_task(client.create("Once only"))
        await eventually(door.waiting)
        await eventually(lambda: proxy.accepted >= 2)
        proxy.change(FAIR)
        task = await creating
        assert await door.waiting() == 1
        assert [one.id async for one in client.list()] == [task.id]


async def test_a_stream_that_is_cut_again_and_again_has_every_letter_once(door, proxy) -> None:
    pieces = [f"{n} " for n in range(12)]
    async with through(proxy) as client:
        task = await client.create("Count")
        lease = await leased(door)

        async def tell() -> None:
            for at, piece in enumerate(pieces):
                await say(door, lease, piece)
                if at % 5 == 3:
                    known = proxy.accepted
                    proxy.cut(proxy.links)
                    await eventually(lambda known=known: proxy.accepted > known)
            await finish(door, lease, "".join(pieces))

        telling = asyncio.create_task(tell())
        heard = [event async for event in client.events(task)]
        await telling
    text = "".join(event.text for event in heard if isinstance(event, Delta))
    assert text == "".join(pieces)
    assert isinstance(heard[-1], Ended)
    assert heard[-1].task.text == text
    assert proxy.accepted >= 3


async def test_a_peer_that_is_gone_without_a_word_is_given_up_and_asked_again(door, proxy) -> None:
    async with through(proxy, silence_s=0.7) as client:
        task = await client.create("Silence")
        events = client.events(task)
        assert isinstance(await anext(events), Queued)
        proxy.change(Weather(swallowed=frozenset({Way.DOWN})), some=lambda: list(proxy.links))
        lease = await leased(door)
        await finish(door, lease, "at last")
        async with asyncio.timeout(20):
            last = [event async for event in events][-1]
        assert isinstance(last, Ended)


async def test_patience_ends(door, proxy) -> None:
    async with through(proxy, patience_s=1) as client:
        task = await client.create("Here")
        proxy.change(Weather(refusing=True))
        proxy.cut(proxy.links)
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            await client.get(task)
        with pytest.raises(UnreachableError) as caught:
            await client.result(task)
        assert time.monotonic() - began < 15
        assert caught.value.retryable
        assert caught.value.mend
    async with Client(f"http://127.0.0.1:{free_port()}", patience_s=0) as nobody:
        with pytest.raises(UnreachableError):
            await nobody.create("Is anyone there?")


async def test_a_full_queue_is_waited_for_no_longer_than_there_is_patience(
    redis, tmp_path, decoders
) -> None:
    limits = Limits(context_tokens=PROFILE.context_tokens, max_waiting=1)
    async with (
        open_door(redis, tmp_path / "blobs", decoders, limits=limits) as door,
        Client(door.url, patience_s=1) as hasty,
        Client(door.url) as patient,
    ):
        await hasty.create("First")
        with pytest.raises(BusyError) as caught:
            await hasty.create("Second")
        assert caught.value.code == "queue_full"
        assert caught.value.retry_after >= 1
        waiting = asyncio.create_task(patient.ask("Third"))
        await asyncio.sleep(0.1)
        async with working(door), asyncio.timeout(30):
            assert await waiting == "The price is 12."


@pytest.fixture
async def odd() -> AsyncIterator[RawServer]:
    server = RawServer()
    async with server.listening():
        yield server


def page(status: str, body: bytes = b"<html>", **headers: str) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


async def test_replies_of_others_are_told_as_what_they_are(odd) -> None:
    odd.answers["/v1/tasks/none"] = ok(b"<html>welcome</html>")
    odd.answers["/v1/tasks/list"] = ok(b"[1, 2]")
    odd.answers["/v1/tasks/other"] = ok(b'{"id": 1}')
    odd.answers["/v1/tasks/far"] = page("404 Not Found", b'{"detail": "x"}')
    odd.answers["/v1/tasks/led"] = page("302 Found", Location="http://127.0.0.1:1/")
    odd.answers["/v1/tasks/packed"] = page("200 OK", b"no gzip", Content_Encoding="gzip")
    odd.answers["/v1/tasks/packed/events"] = page("404 Nothing", b"no", Content_Encoding="gzip")
    odd.answers["/v1/tasks?state=queued&limit=100"] = ok(b'{"data": 7}')
    async with Client(f"http://127.0.0.1:{odd.port}", patience_s=0) as client:
        for name in ("none", "list", "other", "packed"):
            with pytest.raises(UnexpectedReplyError):
                await client.get(name)
        with pytest.raises(UnexpectedReplyError):
            _ = [event async for event in client.events("packed")]
        with pytest.raises(UnexpectedReplyError):
            _ = [task async for task in client.list()]
        with pytest.raises(NotFoundError) as far:
            await client.get("far")
        assert far.value.code == "http_404"
        with pytest.raises(RefusedError) as led:
            await client.get("led")
        assert led.value.status == 302


async def test_retry_after_is_the_earliest_moment_to_come_back(odd, monkeypatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(patience_of.asyncio, "sleep", sleep)
    odd.answers["/v1/tasks/a"] = page("503 Busy", b"{}", Retry_After="7")
    odd.answers["/v1/tasks/b"] = page("502 Bad Gateway")
    odd.answers["/v1/tasks/c"] = page(
        "429 Slow", b"{}", Retry_After="Sat, 21 Nov 2026 00:00:00 GMT"
    )
    odd.answers["/v1/tasks/d"] = page("503 Busy", b"{}", Retry_After="nan")
    odd.answers["/v1/tasks/e"] = page("503 Busy", b"{}", Retry_After="99999")
    clock = FakeClock(monkeypatch)
    async with Client(f"http://127.0.0.1:{odd.port}", patience_s=30) as client:
        for name, least in (("a", 7.0), ("b", 0.25), ("c", 0.25), ("d", 0.25)):
            slept.clear()
            clock.follows(slept)
            with pytest.raises(RefusedError):
                await client.get(name)
            assert all(one >= least for one in slept)
            assert 3 <= len(slept) <= 20
            assert sum(slept) <= 30
        slept.clear()
        with pytest.raises(BusyError) as caught:
            await client.get("e")
        assert (slept, caught.value.retry_after) == ([], 86_400.0)


class FakeClock:
    """A clock that goes on by what was slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._slept: list[float] = []
        monkeypatch.setattr(patience_of.time, "monotonic", lambda: sum(self._slept))

    def follows(self, slept: list[float]) -> None:
        self._slept = slept


async def test_a_server_that_says_nothing_but_that_it_broke_off_is_given_up(odd) -> None:
    told = b'event: interrupted\ndata: {"code": "queue_unavailable"}\n\n'
    odd.answers["/v1/tasks/a/events"] = page("200 OK", told, Content_Type="text/event-stream")
    async with Client(f"http://127.0.0.1:{odd.port}", patience_s=1) as client:
        with pytest.raises(UnreachableError):
            await client.result("a")
    assert 1 < odd.connections < 10


async def test_who_is_cut_off_among_pieces_of_one_place_hears_each_of_them_once(odd) -> None:
    def delta(index: int, text: str, place: str = "") -> bytes:
        told = f'event: delta\n{place}data: {{"index": {index}, "text": "{text}"}}\n\n'
        return told.encode()

    whole = delta(0, "a", "id: 1-0\n") + delta(0, "b") + delta(1, "c", "id: 2-0\n")
    again = delta(0, "b") + delta(1, "c", "id: 2-0\n")
    parts = iter([whole[: whole.index(b'"index": 1')], again])

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + next(parts))
        await writer.drain()

    odd.answers["/v1/tasks/a/events"] = answer
    heard = []
    async with (
        Client(f"http://127.0.0.1:{odd.port}", patience_s=5) as client,
        aclosing(client.events("a")) as events,
    ):
        while len(heard) < 3:
            heard.append(await anext(events))
    assert [(one.index, one.text) for one in heard] == [(0, "a"), (0, "b"), (1, "c")]
    assert [headers.get("last-event-id") for _, headers, _ in odd.asked] == [None, "1-0"]


async def test_leaving_the_events_closes_the_connection(door, proxy) -> None:
    async with through(proxy) as client:
        task = await client.create("Leave")
        async with aclosing(client.events(task)) as events:
            await anext(events)
            assert proxy.links
        await eventually(lambda: not proxy.links)
        assert (await client.get(task)).status == "queued"
