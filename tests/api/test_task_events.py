"""A task's events on the wire: its place, its text, its end, and coming back by the last id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from forebay.api.services import DoorSettings
from forebay.core.events import Piece
from forebay.core.request import TaskId
from forebay.queue.ports import Lease, Outcome, StreamWrite, TaskError
from tests.api.door import USAGE, Door, eventually, open_door

TASKS = "/v1/tasks"


@dataclass
class Event:
    name: str
    content: dict
    place: str


@asynccontextmanager
async def following(door: Door, task_id: str, **more) -> AsyncIterator[AsyncIterator[Event]]:
    """Follow a task; the events end where the server ends them."""
    async with door.http.stream("GET", f"{TASKS}/{task_id}/events", **more) as reply:
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        async with aclosing(events_of(reply)) as events:
            yield events


async def events_of(reply: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in reply.aiter_lines():
        if not line and "data" in fields:
            yield Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
        if not line:
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


async def until(events: AsyncIterator[Event], name: str) -> list[Event]:
    """Return the events up to the first of that name."""
    found = []
    async with asyncio.timeout(10):
        async for event in events:
            found.append(event)
            if event.name == name:
                return found
    raise AssertionError(f"no {name} in {found}")


async def rest(events: AsyncIterator[Event]) -> list[Event]:
    async with asyncio.timeout(10):
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    """Return what a client has at the end: a restart voids what came before it."""
    said = ""
    for event in events:
        said = "" if event.name == "restart" else said + event.content.get("text", "")
    return said


async def submitted(door: Door, **more) -> str:
    task = {"messages": [{"role": "user", "content": "hi"}], **more}
    return (await door.http.post(TASKS, json=task)).json()["id"]


async def leased(door: Door, worker: str = "w") -> Lease:
    (lease,) = await door.queue.claim(worker, 1, 10**6)
    return lease


async def say(door: Door, lease: Lease, *texts: str) -> None:
    for text in texts:
        stale = await door.streams.append([StreamWrite(lease.task_id, lease.fence, text, 1)])
        assert not stale


async def finish(door: Door, lease: Lease, text: str) -> None:
    await door.queue.finish([Outcome(lease.task_id, lease.fence, text=text, usage=USAGE)])


async def test_the_whole_life_of_a_task_in_its_order(door):
    ahead, task_id = await submitted(door), await submitted(door)
    async with following(door, task_id) as events:
        (queued,) = await until(events, "queued")
        assert queued.content["tasks_ahead"] == 1
        assert queued.content["position"] == 2
        assert queued.content["id"] == task_id
        assert "eta_seconds" in queued.content
        assert queued.place == ""
        await finish(door, await leased(door), "first")
        (moved,) = await until(events, "queued")
        assert moved.content["tasks_ahead"] == 0
        lease = await leased(door)
        (started,) = await until(events, "started")
        assert started.content == {"id": task_id, "status": "leased"}
        await say(door, lease, "The ", "price")
        await finish(door, lease, "The price")
        found = await rest(events)
    assert [event.name for event in found] == ["started", "delta", "delta", "done"]
    assert found[0].content["status"] == "decode"
    assert found[1].content == {"id": task_id, "index": 0, "text": "The "}
    assert text_of(found) == "The price"
    assert all(event.place for event in found[1:])
    assert found[-1].content == (await door.http.get(f"{TASKS}/{task_id}")).json()
    assert found[-1].content["output"][0]["text"] == "The price"
    assert ahead != task_id


@pytest.mark.parametrize("how", ["header", "parameter"])
async def test_a_client_that_comes_back_hears_what_followed(door, how):
    task_id = await submitted(door)
    lease = await leased(door)
    await say(door, lease, "one ", "two ")
    async with following(door, task_id) as events:
        heard = await until(events, "delta")
        last = heard[-1].place
    await say(door, lease, "three")
    await finish(door, lease, "one two three")
    more = (
        {"headers": {"Last-Event-ID": last}}
        if how == "header"
        else {"params": {"starting_after": last}}
    )
    async with following(door, task_id, **more) as events:
        found = await rest(events)
    assert text_of(heard) + text_of(found) == "one two three"
    assert found[-1].name == "done"
    again = await door.http.get(
        f"{TASKS}/{task_id}/events", headers={"Last-Event-ID": found[-1].place}
    )
    assert again.status_code == 204


async def test_the_newer_place_of_an_event_source_wins(door):
    task_id = await submitted(door)
    lease = await leased(door)
    await say(door, lease, "one ", "two")
    await finish(door, lease, "one two")
    async with following(door, task_id) as events:
        found = await rest(events)
    deltas = [event for event in found if event.name == "delta"]
    more = {"params": {"starting_after": "0-0"}, "headers": {"Last-Event-ID": deltas[0].place}}
    async with following(door, task_id, **more) as events:
        assert text_of(await rest(events)) == "two"


@pytest.mark.parametrize("place", ["x", "1", "1-x", "-", "9" * 40, "１-0"])
async def test_a_place_that_is_none_is_refused(door, place):
    task_id = await submitted(door)
    reply = await door.http.get(f"{TASKS}/{task_id}/events", params={"starting_after": place})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "starting_after")
    if place.isascii():
        told = {"Last-Event-ID": place}
        reply = await door.http.get(f"{TASKS}/{task_id}/events", headers=told)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "Last-Event-ID")


async def test_a_redelivery_says_restart_and_the_text_is_whole_for_old_and_new_readers(door):
    task_id = await submitted(door)
    first = await leased(door, "doomed")
    await say(door, first, "The pr")
    async with following(door, task_id) as events:
        heard = await until(events, "delta")
        await door.queue.reap("doomed")
        second = await leased(door, "heir")
        await say(door, second, "The ", "price")
        await finish(door, second, "The price")
        heard += await rest(events)
    names = [event.name for event in heard]
    assert names.index("restart") < names.index("done")
    assert text_of(heard) == "The price"
    assert heard[-1].content["deliveries"] == 2
    async with following(door, task_id, headers={"Last-Event-ID": heard[2].place}) as events:
        back = await rest(events)
    assert back[0].name == "started" or back[0].name == "restart"
    assert text_of(back) == "The price"


async def test_a_task_that_goes_back_to_the_queue_says_where_it_stands(door):
    task_id = await submitted(door)
    lease = await leased(door)
    async with following(door, task_id) as events:
        await until(events, "started")
        await door.queue.release([(lease.task_id, lease.fence)])
        (queued,) = await until(events, "queued")
        assert queued.content["tasks_ahead"] == 0


async def test_answers_beside_the_first_have_their_index_and_one_place(door):
    task_id = await submitted(door, n=2)
    lease = await leased(door)
    write = StreamWrite(lease.task_id, lease.fence, "a", 2, others=(Piece(1, "b"),))
    await door.streams.append([write])
    async with following(door, task_id) as events:
        first, second = (await until(events, "delta"))[-1], await anext(events)
    assert (first.content["index"], first.content["text"], first.place) == (0, "a", "")
    assert (second.content["index"], second.content["text"]) == (1, "b")
    assert second.place


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_other_ends_bring_the_final_object_too(door, how):
    task_id = await submitted(door)
    async with following(door, task_id) as events:
        if how == "error":
            lease = await leased(door)
            error = TaskError("inference_failed", "no luck")
            await door.queue.finish([Outcome(lease.task_id, lease.fence, error=error)])
        else:
            await door.http.delete(f"{TASKS}/{task_id}")
        end = (await rest(events))[-1]
    assert end.name == how
    assert end.content == (await door.http.get(f"{TASKS}/{task_id}")).json()
    assert end.content["error"]["code"] == ("inference_failed" if how == "error" else how)


async def test_a_listener_that_hangs_up_leaves_the_task_and_the_watch(door):
    task_id = await submitted(door)
    async with following(door, task_id) as events:
        await until(events, "queued")
        assert TaskId(task_id) in door.services.watch.watched
    await eventually(lambda: not door.services.watch.watched)
    assert (await door.http.get(f"{TASKS}/{task_id}")).json()["status"] == "queued"


async def test_a_silent_stream_is_kept_open_by_comments(redis, tmp_path, decoders):
    settings = DoorSettings(keep_alive_s=0.05)
    async with open_door(redis, tmp_path / "blobs", decoders, settings=settings) as door:
        task_id = await submitted(door)
        async with door.http.stream("GET", f"{TASKS}/{task_id}/events") as reply:
            async with asyncio.timeout(10):
                async for line in reply.aiter_lines():
                    if line.startswith(":"):
                        break


async def test_a_slow_reader_is_dropped_and_finds_its_place_again(redis, tmp_path, decoders):
    """It reads nothing of an answer larger than every buffer on the way, then comes back."""
    settings = DoorSettings(send_timeout_s=0.2)
    pieces = [f"{at:04d}" + "x" * 60_000 for at in range(200)]
    async with open_door(redis, tmp_path / "blobs", decoders, settings=settings) as door:
        task_id = await submitted(door)
        lease = await leased(door)
        url = httpx.URL(door.url)
        reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
        path = f"{TASKS}/{task_id}/events"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await eventually(lambda: door.services.watch.watched)
        await say(door, lease, *pieces)
        await finish(door, lease, "".join(pieces))
        await eventually(lambda: not door.services.watch.watched)  # dropped
        read = (await reader.read()).decode(errors="replace")
        writer.close()
        places = [line[4:] for line in read.splitlines() if line.startswith("id: ")][:-1]
        assert places
        heard = [line for line in read.splitlines() if '"text":' in line]
        whole = heard[: len(places)]
        async with following(door, task_id, headers={"Last-Event-ID": places[-1]}) as events:
            found = await rest(events)
    said = "".join(json.loads(line[6:])["text"] for line in whole)
    assert said + text_of(found) == "".join(pieces)
