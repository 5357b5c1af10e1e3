"""The console's API on a real door: figures of several processes, orders, tasks of all tenants."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from forebay.access.caller import Scope
from forebay.admission.pool import DecoderPool
from forebay.api.console.composition import open_console
from forebay.api.console.csv_form import table
from forebay.api.console.desk import ConsoleDesk
from forebay.api.console.feed import MOST_READERS, Feed
from forebay.api.console.task_view import timeline
from forebay.config import Settings
from forebay.core.request import Cost, InferenceRequest, Message, Role, TaskId, Tenant, TextPart
from forebay.ops.live.columns import KEYS
from forebay.ops.metrics import Metrics
from forebay.queue.connection import connect
from forebay.queue.fleet import DRAIN, Fleet
from forebay.queue.ports import NewTask, Outcome, TaskError
from forebay.queue.redis_queue import RedisQueue
from tests.access.doors import bearer, guarded, make_key
from tests.api.door import Door
from tests.ops.test_live_parts import says

A = "/v1/admin"
QUEUE = "test"


WAIT_S = 60.0
"""Bounds every wait: figures come once a second, on a busy machine late."""


async def seen(condition: Callable[[], object]) -> None:
    """Return when ``condition`` holds."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


def settings(tmp_path: Path) -> Settings:
    return Settings(queue_name=QUEUE, data_dir=tmp_path)


@asynccontextmanager
async def process(redis: Redis, tmp_path: Path) -> AsyncIterator[ConsoleDesk]:
    """What of another API process takes figures."""
    queue = RedisQueue(redis, QUEUE)
    await queue.start()
    async with open_console(settings(tmp_path), redis, queue, Metrics(), None) as desk:
        yield desk


class Console:
    """A door with a console, and an administrator before it."""

    def __init__(self, door: Door, desk: ConsoleDesk, key: str, fleet: Fleet) -> None:
        self.door, self.desk, self.key, self.fleet = door, desk, key, fleet

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.door.http.get(A + path, params=params, headers=bearer(self.key))

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.door.http.post(A + path, json=body, headers=bearer(self.key))

    async def listed(self, path: str, **params: Any) -> list[dict[str, Any]]:
        reply = await self.get(path, **params)
        assert reply.status_code == 200, reply.text
        return list(reply.json()["data"])

    async def deeds(self) -> list[tuple[str, str, str]]:
        found = await self.listed("/audit", limit=20)
        return [(one["action"], one["target"], one["outcome"]) for one in found]


@pytest.fixture
async def console(redis: Redis, tmp_path: Path, decoders: DecoderPool) -> AsyncIterator[Console]:
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(process(redis, tmp_path))
        door, access = await stack.enter_async_context(
            guarded(redis, tmp_path, decoders, console=desk)
        )
        key = await make_key(access, Scope.ADMIN)
        await seen(lambda: desk.pulse.now is not None)
        yield Console(door, desk, key, Fleet(redis, QUEUE))


async def submit(console: Console, name: str, tenant: str = "default") -> TaskId:
    request = InferenceRequest("m", (Message(Role.USER, (TextPart("a secret question"),)),))
    new = NewTask(TaskId(name), request, Cost(0, 10, 0), Tenant(tenant))
    return (await console.door.queue.enqueue(new)).task_id


async def test_only_administrators_see_and_do(console: Console) -> None:
    plain = console.door.http
    for path in ("/now", "/series", "/stream", "/workers", "/tasks", "/tasks/x", "/limits"):
        assert (await plain.get(A + path)).status_code == 401
    for path in ("/workers/x/drain", "/workers/scale", "/tasks/x/cancel", "/dead-letters/retry"):
        assert (await plain.post(A + path, json={})).status_code in (401, 403), path


async def test_now_is_a_point_with_every_figure_and_the_light(console: Console) -> None:
    now = (await console.get("/now")).json()
    assert set(now["values"]) == set(KEYS)
    assert now["light"]["color"] == "red"  # nobody answers here
    assert now["light"]["reasons"][0]["code"] == "no_workers"
    assert 0 <= now["values"]["memory"] <= 1


async def test_every_process_has_the_same_history_also_one_that_was_started_later(
    console: Console, redis: Redis, tmp_path: Path
) -> None:
    rings = console.desk.pulse.rings
    await seen(lambda: len(rings.fine.since(0)) >= 3)
    async with process(redis, tmp_path) as other:
        await seen(lambda: len(other.pulse.rings.fine.since(0)) >= 4)
        theirs = other.pulse.rings.fine.since(0)
        await seen(lambda: len(rings.fine.since(0)) >= len(theirs))
        assert rings.fine.since(0)[: len(theirs)] == theirs
    series = (await console.get("/series", seconds=60)).json()
    assert series["columns"] == ["at", *KEYS]
    assert [row[0] for row in series["rows"]][: len(theirs)] == [at_s for at_s, _ in theirs]
    assert series["step_s"] == 1
    assert series["thresholds"]["cpu"] == 0.7
    assert set(series["units"]) == set(KEYS)
    assert (await console.get("/series", seconds=80_000)).json()["step_s"] == 30


async def test_another_process_leads_when_the_first_one_ends(redis: Redis, tmp_path: Path) -> None:
    async with process(redis, tmp_path) as second:
        async with process(redis, tmp_path):
            await seen(lambda: second.pulse.now is not None)
        before = second.pulse.rings.fine.place
        await seen(lambda: second.pulse.rings.fine.place != before)


async def test_while_the_queues_server_is_away_the_light_says_so(tmp_path: Path) -> None:
    nobody = connect(f"unix://{tmp_path}/nobody.sock", answer_s=0.2)
    queue = RedisQueue(nobody, QUEUE)
    async with open_console(settings(tmp_path), nobody, queue, Metrics(), None) as desk:
        await seen(lambda: desk.pulse.now is not None)
        assert desk.pulse.now is not None
        light = desk.pulse.now.to_json()["light"]
    assert light["color"] == "red"
    assert [one["code"] for one in light["reasons"]] == ["queue_away"]
    await nobody.aclose()


async def events(console: Console, count: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    name = ""
    async with (
        asyncio.timeout(60),
        console.door.http.stream("GET", f"{A}/stream", headers=bearer(console.key)) as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


async def test_a_stream_has_a_point_a_second_and_the_workers_when_they_change(
    console: Console,
) -> None:
    await console.fleet.report("w1", says())
    reading = asyncio.create_task(events(console, 6))
    await seen(lambda: console.desk.feed.readers == 1)
    await console.fleet.report("w2", says("draining"))
    found = await reading
    points = [one["at"] for name, one in found if name == "point"]
    assert len(points) >= 3
    assert points == sorted(points)
    fleets = [one["data"] for name, one in found if name == "workers"]
    assert [[each["id"] for each in one] for one in fleets][-1] == ["w1", "w2"]
    await seen(lambda: console.desk.feed.readers == 0)


async def test_a_reader_that_does_not_read_is_dropped_and_too_many_are_refused(
    console: Console,
) -> None:
    feed: Feed = console.desk.feed
    stuck = [feed.events() for _ in range(MOST_READERS)]
    for one in stuck:
        await anext(one)
    reply = await console.get("/stream")
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) > 0
    await seen(lambda: feed.readers == 0)  # as fast as they fall behind
    with pytest.raises(StopAsyncIteration):
        await anext(stuck[0])


async def test_there_are_no_more_readers_though_all_of_them_come_at_once(console: Console) -> None:
    feed: Feed = console.desk.feed
    for _ in range(MOST_READERS + 9):
        feed.check_room()
    came = [feed.events() for _ in range(MOST_READERS + 9)]
    await asyncio.gather(*(anext(one) for one in came))
    assert feed.readers <= MOST_READERS
    with pytest.raises(StopAsyncIteration):
        await anext(came[-1])
    for one in came:
        await one.aclose()


async def test_who_reads_for_long_comes_in_anew_and_needs_a_key_that_is_good(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.console.feed.MOST_TOLD", 2)
    with pytest.raises(AssertionError, match="the stream ended"):
        await events(console, 100)
    await seen(lambda: console.desk.feed.readers == 0)


async def test_what_is_wanted_of_a_worker_is_left_for_it_and_recorded(console: Console) -> None:
    await console.fleet.report("w1", says())
    reply = await console.post("/workers/w1/drain")
    assert (reply.status_code, reply.json()["ordered"]) == (202, "drain")
    assert await console.fleet.report("w1", says()) == DRAIN
    assert (await console.post("/workers/w1/restart")).json()["ordered"] == "restart"
    assert (await console.fleet.report("w1", says())) == f"restart {says()['life']}"
    assert (await console.post("/workers/w1/undrain")).json()["ordered"] is None
    assert await console.fleet.report("w1", says()) == ""
    missing = await console.post("/workers/nobody/drain")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "worker_not_found")
    assert await console.deeds() == [
        ("worker.drain", "nobody", "worker_not_found"),
        ("worker.undrain", "w1", "done"),
        ("worker.restart", "w1", "done"),
        ("worker.drain", "w1", "done"),
    ]


async def test_the_number_of_workers_is_told_to_supervisors_or_refused_where_there_is_none(
    console: Console,
) -> None:
    reply = await console.post("/workers/scale", {"count": 2})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "no_supervisor")
    stack = {"kind": "stack", "host": "h", "pid": 1, "wanted": 1, "workers": {}, "group": "stable"}
    await console.fleet.report("stack-a", stack)
    await console.fleet.report("stack-b", stack)
    reply = await console.post("/workers/scale", {"count": 3})
    assert (reply.status_code, reply.json()["stacks"]) == (202, ["stack-a", "stack-b"])
    assert await console.fleet.report("stack-a", stack) == "run 3"
    reply = await console.post("/workers/scale", {"count": 0, "stack": "stack-b"})
    assert reply.json()["stacks"] == ["stack-b"]
    assert await console.fleet.report("stack-b", stack) == "run 0"
    assert await console.fleet.report("stack-a", stack) == "run 3"
    assert (await console.post("/workers/scale", {"count": 65})).status_code == 400
    assert (await console.deeds())[0] == ("worker.scale", "stack-b: 0", "done")


async def test_tasks_of_all_tenants_are_listed_without_what_they_ask(console: Console) -> None:
    for i in range(5):
        await submit(console, f"t{i}", tenant=f"tenant-{i % 2}")
    found = await console.listed("/tasks", state="queued")
    assert [one["id"] for one in found] == ["t4", "t3", "t2", "t1", "t0"]
    assert {one["tenant"] for one in found} == {"tenant-0", "tenant-1"}
    assert found[0]["cost_tokens"] == 10
    text = (await console.get("/tasks")).text
    assert "secret" not in text
    page = (await console.get("/tasks", limit=2, tenant="tenant-0")).json()
    assert [one["id"] for one in page["data"]] == ["t4", "t2"]
    rest = await console.listed("/tasks", tenant="tenant-0", after=page["next_after"])
    assert [one["id"] for one in rest] == ["t0"]
    assert [one["id"] for one in await console.listed("/tasks", q="t3")] == ["t3"]
    assert (await console.get("/tasks", after="no number")).status_code == 400


async def test_a_tasks_timeline_has_every_delivery(console: Console) -> None:
    queue, task_id = console.door.queue, await submit(console, "t0")
    (first,) = await queue.claim("w1", 1, 10**9)
    await queue.reap("w1")
    (second,) = await queue.claim("w2", 1, 10**9)
    del first
    await queue.finish([Outcome(second.task_id, second.fence, "the answer")])
    shown = (await console.get(f"/tasks/{task_id}")).json()
    assert [(one["stage"], one["worker"], one["attempt"]) for one in shown["timeline"]] == [
        ("received", None, 0),
        ("queued", None, 0),
        ("leased", "w1", 1),
        ("returned", "w1", 1),
        ("queued", None, 0),
        ("leased", "w2", 2),
        ("finished", "w2", 2),
    ]
    times = [one["at"] for one in shown["timeline"]]
    assert times == sorted(times)
    assert "the answer" not in json.dumps(shown)
    record = await queue.get(task_id)
    assert record is not None
    (past,) = record.past
    at_once = replace(record, past=[replace(past, leased_s=record.leased_s)])  # in one millisecond
    assert [one["stage"] for one in timeline(at_once)].count("leased") == 2
    assert (await console.get("/tasks/unknown")).json()["error"]["code"] == "task_not_found"


async def test_tasks_are_cancelled_and_dead_letters_sent_back_whoever_they_are_of(
    console: Console,
) -> None:
    queue = console.door.queue
    await submit(console, "a", tenant="somebody")
    assert (await console.post("/tasks/a/cancel")).status_code == 200
    reply = await console.post("/tasks/a/cancel")
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    reply = await console.post("/tasks/a/retry")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "task_not_dead")
    for name in ("b", "c", "d"):
        await submit(console, name, tenant=f"of-{name}")
        for _ in range(3):
            await queue.claim("w", 1, 10**9)
            await queue.reap("w")
    assert len(await console.listed("/tasks", state="dead")) == 3
    assert (await console.post("/tasks/b/retry")).status_code == 202
    reply = await console.post("/dead-letters/retry", {"tenant": "of-c"})
    assert reply.json() == {"retried": 1, "more": False}
    assert (await console.post("/dead-letters/retry")).json() == {"retried": 1, "more": False}
    assert await console.listed("/tasks", state="dead") == []
    told = (await console.get("/tasks/b")).json()["timeline"]
    assert [one["why"] for one in told if one["stage"] == "returned"][-1] == "dead_letter"
    actions = [one[0] for one in await console.deeds()]
    assert actions[:2] == ["dead_letter.retry_all", "dead_letter.retry_all"]
    assert actions.count("task.cancel") == 2


async def test_lists_are_tables_too_and_no_cell_is_a_formula(console: Console) -> None:
    await submit(console, "=1+1")
    queue = console.door.queue
    (lease,) = await queue.claim("w", 1, 10**9)
    error = TaskError("inference_failed", "it failed")
    await queue.finish([Outcome(lease.task_id, lease.fence, error=error)])
    await console.fleet.report("w1", says())
    await console.post("/workers/w1/drain")
    for path, first in (
        ("/tasks", "id"),
        ("/workers", "id"),
        ("/series", "at"),
        ("/audit", "at"),
    ):
        reply = await console.get(path, format="csv")
        assert reply.headers["content-type"].startswith("text/csv")
        assert "attachment" in reply.headers["content-disposition"]
        head, *rows = list(csv.reader(io.StringIO(reply.text)))
        assert head[0] == first
        assert rows
        assert {len(row) for row in rows} == {len(head)}
    (row,) = csv.DictReader(io.StringIO((await console.get("/tasks", format="csv")).text))
    assert row["id"] == "'=1+1"
    assert json.loads(row["error"])["code"] == "inference_failed"


@pytest.mark.parametrize("start", list("=+-@\t\r\n＝＋－＠"))
def test_a_cell_that_looks_like_a_formula_is_a_text(start: str) -> None:
    told = bytes(table(["a"], [[f"{start}1+1"]], "name").body).decode()
    assert list(csv.reader(io.StringIO(told, newline="")))[1] == [f"'{start}1+1"]


async def test_limits_and_whose_load_it_is(console: Console) -> None:
    await submit(console, "a", tenant="busy")
    found = (await console.get("/limits")).json()
    assert found["load"]["waiting"] == 1
    assert found["tenants"] == [{"tenant": "busy", "waiting": 1, "waiting_tokens": 10}]
    assert "max_waiting" in found["limits"]
