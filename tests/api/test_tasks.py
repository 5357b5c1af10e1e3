"""The tasks API's contract: submit, ask, wait, cancel, on a real socket and a real queue."""

from __future__ import annotations

import asyncio
import json
import math
import re

import pytest

from forebay.admission.policy import Limits
from forebay.api.cursors import next_cursor
from forebay.api.webhooks.door import WebhookDoor
from forebay.core.lifecycle import State
from forebay.core.request import DEFAULT_TENANT, ImagePart, Priority, TaskId, TextPart
from forebay.outbound.reach import Reach
from forebay.queue.ports import Listing, Outcome, StreamWrite, TaskError
from tests.admission.pictures import hostile, picture
from tests.api.door import MODEL, USAGE, Door, data_url, eventually, open_door, working

TASKS = "/v1/tasks"


def body(content="hi", **more) -> dict:
    return {"messages": [{"role": "user", "content": content}], **more}


async def submitted(door: Door, **more) -> dict:
    reply = await door.http.post(TASKS, json=body(**more))
    assert reply.status_code == 202, reply.text
    return reply.json()


async def ended(door: Door, task_id: str) -> dict:
    async with asyncio.timeout(10):
        while True:
            task = (await door.http.get(f"{TASKS}/{task_id}")).json()
            if task["finished_at"] is not None:
                return task
            await asyncio.sleep(0.02)


async def test_a_task_is_taken_with_its_place_and_where_to_follow_it(door):
    first = await door.http.post(TASKS, json=body())
    second = await door.http.post(TASKS, json=body(priority="vip", metadata={"order": "7"}))
    assert (first.status_code, second.status_code) == (202, 202)
    task = second.json()
    assert second.headers["Location"] == task["urls"]["self"] == f"{TASKS}/{task['id']}"
    assert int(second.headers["Retry-After"]) >= 1
    assert second.headers["Cache-Control"] == "no-store"
    assert task["object"] == "task"
    assert task["status"] == "queued"
    assert (task["position"], task["tasks_ahead"]) == (1, 0)
    assert task["priority"] == "vip"
    assert task["metadata"] == {"order": "7"}
    assert task["created_at"] > 1_700_000_000
    nothing_yet = ("output", "usage", "error", "started_at", "finished_at", "reuse")
    assert all(task[field] is None for field in nothing_yet)
    behind = (await door.http.get(first.headers["Location"])).json()
    assert (behind["position"], behind["tasks_ahead"]) == (2, 1)
    for name in ("events", "cancel", "result"):
        assert task["urls"][name].startswith(task["urls"]["self"])


async def test_a_finished_task_has_output_and_usage_and_keeps_its_fields(door):
    task = await submitted(door)
    async with working(door):
        final = await ended(door, task["id"])
    assert set(final) == set(task)
    assert final["status"] == "finished"
    assert final["output"] == [
        {"index": 0, "text": "The price is 12.", "finish_reason": "stop", "logprobs": None}
    ]
    assert final["usage"] == USAGE.to_dict()
    assert final["error"] is None
    assert final["position"] is None
    assert final["created_at"] <= final["started_at"] <= final["finished_at"]
    assert final["deliveries"] == 1
    assert final["seconds"]["waiting"] >= 0


async def test_a_failed_task_says_why_and_whether_to_try_again(door):
    task = await submitted(door)
    async with working(door, lambda _: TaskError("inference_failed", "no luck")):
        final = await ended(door, task["id"])
    assert final["status"] == "failed"
    assert final["output"] is None
    assert final["error"] == {"code": "inference_failed", "message": "no luck", "retryable": False}
    result = await door.http.get(task["urls"]["result"])
    assert result.status_code == 500
    assert result.json()["error"]["code"] == "inference_failed"


async def test_the_result_is_what_chat_would_have_answered(door):
    task = await submitted(door)
    early = await door.http.get(task["urls"]["result"])
    assert (early.status_code, early.json()["status"]) == (202, "queued")
    assert early.headers["Location"] == task["urls"]["self"]
    async with working(door):
        await ended(door, task["id"])
        result = (await door.http.get(task["urls"]["result"])).json()
        chat = (await door.http.post("/v1/chat/completions", json=body(model=MODEL))).json()
    for answer in (result, chat):
        del answer["id"], answer["created"]
    assert result == chat


async def test_pictures_come_in_messages_as_image_and_prompt_or_as_files(door):
    url = data_url(picture("PNG"))
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    files = {"image": ("a.png", picture("PNG"), "image/png")}
    async with working(door) as worker:
        for reply in (
            await door.http.post(TASKS, json=body(parts)),
            await door.http.post(TASKS, json={"image": url, "prompt": "What?"}),
            await door.http.post(TASKS, files=files, data={"prompt": "What?"}),
        ):
            assert reply.status_code == 202, reply.text
            await ended(door, reply.json()["id"])
    assert len(worker.seen) == 3
    for request in worker.seen:
        image, text = request.messages[0].parts
        assert isinstance(image, ImagePart)
        assert text == TextPart("What?")


async def test_a_form_takes_several_pictures_and_every_field(door):
    files = [("image", (f"{at}.png", picture("PNG"), "image/png")) for at in range(2)]
    fields = {
        "prompt": "Which is larger?",
        "model": MODEL,
        "max_tokens": "7",
        "temperature": "0.5",
        "stop": ["a", "b"],
        "n": "2",
        "priority": "3",
        "deadline_s": "60",
        "metadata": json.dumps({"from": "a form"}),
    }
    task = (await door.http.post(TASKS, files=files, data=fields)).json()
    assert (task["priority"], task["metadata"]) == ("3", {"from": "a form"})
    async with working(door) as worker:
        await ended(door, task["id"])
    sampling = worker.seen[0].sampling
    assert (sampling.max_tokens, sampling.n, sampling.stop) == (7, 2, ("a", "b"))
    assert len(worker.seen[0].images) == 2


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"stream": True}, "stream"),
        ({"nonsense": 1}, "nonsense"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": 10}, "priority"),
        ({"priority": True}, "priority"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": "60"}, "deadline_s"),
        ({"deadline_s": 5, "delay_s": 5}, "deadline_s"),
        ({"delay_s": -1}, "delay_s"),
        ({"delay_s": 10**9}, "delay_s"),
        ({"webhook_url": ""}, "webhook_url"),
        ({"webhook_url": "https://example.com/hook"}, "webhook_url"),
        ({"webhook_url": "http://a/" + "x" * 2048}, "webhook_url"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"": "x"}}, "metadata."),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {str(at): "" for at in range(17)}}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"prompt": "and this"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "prompt"),
        ({"messages": None, "prompt": "  "}, "prompt"),
        ({"n": 100}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
async def test_a_field_that_cannot_be_honoured_is_named_and_nothing_is_kept(door, wrong, param):
    refused = await door.http.post(TASKS, json={**body(), **wrong})
    assert refused.status_code == 400, refused.text
    assert param in refused.json()["error"]["param"]
    assert await door.waiting() == 0


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("text/plain", b"hi"),
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"nothing"),
    ],
)
async def test_a_body_of_no_known_form_is_refused(door, kind, content):
    refused = await door.http.post(TASKS, content=content, headers={"Content-Type": kind})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"]
    assert await door.waiting() == 0


async def test_hostile_pictures_are_clean_refusals_in_a_form_too(door):
    for name, content in hostile().items():
        reply = await door.http.post(TASKS, files={"image": content}, data={"prompt": "What?"})
        assert reply.status_code in (413, 422), name
    empty = await door.http.post(TASKS, files={"image": b""}, data={"prompt": "What?"})
    assert (empty.status_code, empty.json()["error"]["code"]) == (400, "missing_part")
    assert await door.waiting() == 0


async def test_a_model_that_is_not_served_is_not_found(door):
    refused = await door.http.post(TASKS, json=body(model="gpt-4o"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_request_sent_again_under_its_key_is_the_same_task(door):
    headers = {"Idempotency-Key": "order-7"}
    first = await door.http.post(TASKS, json=body(), headers=headers)
    again = await door.http.post(TASKS, json=body(), headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert await door.waiting() == 1
    async with working(door):
        await ended(door, first.json()["id"])
        late = await door.http.post(TASKS, json=body(), headers=headers)
    assert late.json()["output"][0]["text"] == "The price is 12."


async def test_a_request_sent_again_is_answered_though_the_queue_is_full_and_nothing_is_decoded(
    redis, tmp_path, decoders
):
    limits = Limits(context_tokens=8192, max_waiting=1)
    headers = {"Idempotency-Key": "order-7"}
    sent = body([{"type": "image_url", "image_url": {"url": data_url(picture("JPEG"))}}])
    async with open_door(redis, tmp_path / "blobs", decoders, limits=limits) as door:
        first = await door.http.post(TASKS, json=sent, headers=headers)
        full = await door.http.post(TASKS, json=body())
        assert (first.status_code, full.status_code) == (202, 503)
        again = await door.http.post(TASKS, json=sent, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        other = await door.http.post(TASKS, json=body("other"), headers=headers)
        assert other.status_code == 409
        metrics = (await door.http.get("/metrics")).text
        for said in ("forebay_admitted_total 1.0", "forebay_picture_decode_seconds_count 1.0"):
            assert said in metrics


async def test_a_key_used_for_something_else_is_a_conflict(door):
    headers = {"Idempotency-Key": "order-7"}
    await door.http.post(TASKS, json=body(), headers=headers)
    others = [
        await door.http.post(TASKS, json=body("other"), headers=headers),
        await door.http.post(TASKS, json=body(priority="vip"), headers=headers),
        await door.http.post("/v1/chat/completions", json=body(model=MODEL), headers=headers),
    ]
    for other in others:
        code = other.json()["error"]["code"]
        assert (other.status_code, code) == (409, "idempotency_conflict")
    assert await door.waiting() == 1


async def test_a_form_sent_again_is_the_same_though_its_boundary_differs(door):
    headers = {"Idempotency-Key": "k"}
    found = set()
    for content in (picture("PNG"), picture("PNG"), picture("JPEG")):
        files = {"image": ("a.png", content, "image/png")}
        reply = await door.http.post(TASKS, files=files, data={"prompt": "?"}, headers=headers)
        found.add((reply.status_code, reply.json().get("id")))
    assert [status for status, _ in sorted(found)] == [200, 202, 409]
    assert len({task_id for _, task_id in found if task_id}) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "\u00e9".encode()])
async def test_a_key_of_another_form_is_refused(door, key):
    refused = await door.http.post(TASKS, json=body(), headers={"Idempotency-Key": key})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert await door.waiting() == 0


async def test_the_task_tells_how_long_each_part_took(door):
    task = await submitted(door)
    (lease,) = await door.queue.claim("w", 1, 10**6)
    await asyncio.sleep(0.35)  # what the phases below took
    phases = ((State.ENCODING, 0.3), (State.PREFILL, 0.2), (State.DECODE, 0.1))
    await door.streams.append([StreamWrite(lease.task_id, lease.fence, phases=phases)])
    running = (await door.http.get(task["urls"]["self"])).json()
    assert running["status"] == "decode"
    assert running["seconds"]["decode"] is None
    assert running["seconds"]["prefill"] == pytest.approx(0.1, abs=0.01)
    await door.queue.finish([Outcome(lease.task_id, lease.fence, text="x", usage=USAGE)])
    final = await ended(door, task["id"])
    assert final["seconds"]["encoding"] == pytest.approx(0.1, abs=0.01)
    assert final["seconds"]["decode"] >= 0.1


async def test_an_unknown_task_is_not_found_by_any_route(door):
    for method, path in (
        ("GET", "nothing"),
        ("GET", "nothing/events"),
        ("GET", "nothing/result"),
        ("DELETE", "nothing"),
        ("POST", "nothing/cancel"),
        ("GET", "%00%ff" * 100),
    ):
        reply = await door.http.request(method, f"{TASKS}/{path}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "task_not_found")


async def test_prefer_wait_answers_with_the_finished_task(door):
    async with working(door):
        reply = await door.http.post(
            TASKS, json=body(), headers={"Prefer": "respond-async, wait=10"}
        )
    assert reply.status_code == 200
    assert reply.headers["Preference-Applied"] == "wait=10"
    assert reply.json()["output"][0]["text"] == "The price is 12."


async def test_prefer_wait_gives_up_with_the_task_as_it_is(door):
    reply = await door.http.post(TASKS, json=body(), headers={"Prefer": "wait=0"})
    assert (reply.status_code, reply.json()["status"]) == (202, "queued")
    assert reply.headers["Preference-Applied"] == "wait=0"
    longer = await door.http.post(TASKS, json=body(), headers={"Prefer": "wait=1"})
    assert (longer.status_code, longer.json()["status"]) == (202, "queued")
    assert await door.waiting() == 2


@pytest.mark.parametrize("prefer", ["wait=x", "wait=-1", "await=10", "wait", "x=1"])
async def test_a_preference_that_is_not_understood_is_ignored(door, prefer):
    reply = await door.http.post(TASKS, json=body(), headers={"Prefer": prefer})
    assert reply.status_code == 202
    assert "Preference-Applied" not in reply.headers


async def test_a_client_that_hangs_up_while_it_waits_leaves_its_task(door):
    waiting = asyncio.create_task(door.http.post(TASKS, json=body(), headers={"Prefer": "wait=60"}))
    await eventually(door.waiting)
    waiting.cancel()
    await asyncio.sleep(0.3)
    assert (await door.queue.depth()).waiting == 1


@pytest.mark.parametrize(("method", "path"), [("DELETE", "self"), ("POST", "cancel")])
async def test_a_waiting_task_is_cancelled_once_and_for_all(door, method, path):
    task = await submitted(door)
    for _ in range(2):
        reply = await door.http.request(method, task["urls"][path])
        assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    assert reply.json()["error"]["code"] == "cancelled"
    assert await door.waiting() == 0
    result = await door.http.get(task["urls"]["result"])
    assert (result.status_code, result.json()["error"]["code"]) == (409, "cancelled")


async def test_a_running_task_is_cancelled_when_its_worker_drops_it(door):
    task = await submitted(door)
    (lease,) = await door.queue.claim("w", 1, 10**6)
    reply = await door.http.delete(task["urls"]["self"])
    assert (reply.status_code, reply.json()["status"]) == (202, "leased")
    beat = await door.queue.heartbeat("w", [(lease.task_id, lease.fence)])
    assert lease.task_id in beat.cancelled


async def test_a_finished_task_cannot_be_cancelled(door):
    task = await submitted(door)
    async with working(door):
        await ended(door, task["id"])
    reply = await door.http.delete(task["urls"]["self"])
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "task_ended")
    assert (await door.queue.get(TaskId(task["id"]))).state is State.FINISHED


async def test_a_more_urgent_task_is_served_first(door):
    late = await submitted(door, priority=Priority.BATCH)
    soon = await submitted(door, priority=0)
    (lease,) = await door.queue.claim("w", 1, 10**6)
    assert lease.task_id == soon["id"] != late["id"]


async def test_tasks_are_listed_by_state_in_pages(door):
    ids = [(await submitted(door))["id"] for _ in range(5)]
    delayed = await submitted(door, delay_s=60)
    (lease,) = await door.queue.claim("w", 1, 10**6)
    pages, cursor = [], ""
    while cursor is not None:
        reply = await door.http.get(TASKS, params={"limit": 3, "cursor": cursor})
        assert reply.status_code == 200
        pages.append([task["id"] for task in reply.json()["data"]])
        cursor = reply.json()["next_cursor"]
    assert [task_id for page in pages for task_id in page] == ids[1:]
    assert len(pages[0]) == 3
    for state, listed in (("delayed", delayed["id"]), ("running", lease.task_id)):
        (task,) = (await door.http.get(TASKS, params={"state": state})).json()["data"]
        assert task["id"] == listed
        assert set(task) == set(delayed)
    assert (await door.http.get(TASKS, params={"state": "dead"})).json()["data"] == []


def own_cursor(told: str) -> str | None:
    return next_cursor(Listing.WAITING, DEFAULT_TENANT, told)


async def test_a_cursor_is_of_its_own_list_alone(door):
    for n in range(3):
        for delay_s in (0, 600):
            body = {"messages": [{"role": "user", "content": f"{n}"}], "delay_s": delay_s}
            assert (await door.http.post(TASKS, json=body)).status_code == 202
    first = (await door.http.get(TASKS, params={"limit": 2, "state": "delayed"})).json()
    cursor = first["next_cursor"]
    more = await door.http.get(TASKS, params={"state": "delayed", "cursor": cursor})
    assert len(more.json()["data"]) == 1
    others = await door.http.get(TASKS, params={"state": "queued", "cursor": cursor})
    assert others.status_code == 400
    assert others.json()["error"]["param"] == "cursor"
    assert "same list" in others.json()["error"]["message"]
    foreign = next_cursor(Listing.DELAYED, "rival", '["1.5","b"]')
    refused = await door.http.get(TASKS, params={"state": "delayed", "cursor": foreign})
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "params",
    [
        {"state": "nonsense"},
        {"limit": 0},
        {"limit": 101},
        {"limit": "x"},
        {"cursor": "x"},
        {"cursor": "密"},
        {"cursor": own_cursor("nothing")},
        {"cursor": own_cursor('["nan","b"]')},
        {"cursor": own_cursor('["1","b","77","t"]')},
        {"cursor": '["a"]'},
        {"cursor": '["a","b","c","d"]'},
        {"cursor": '["nan","b"]'},
        {"cursor": '["1","b","x","t"]'},
        {"cursor": '["1","b","77","t"]'},
        {"cursor": '{"1": "b"}'},
    ],
)
async def test_a_listing_that_cannot_be_made_is_refused(door, params):
    await submitted(door)
    refused = await door.http.get(TASKS, params=params)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == next(iter(params))


async def test_a_refusal_says_when_there_will_be_room_by_the_measured_rate(
    redis, tmp_path, decoders
):
    limits = Limits(context_tokens=8192, max_waiting=3)
    async with open_door(redis, tmp_path / "blobs", decoders, limits=limits) as door:
        for _ in range(2):  # 0.5 s of work for each task
            await submitted(door)
            (lease,) = await door.queue.claim("w", 1, 10**6)
            await asyncio.sleep(0.5)
            await door.queue.finish([Outcome(lease.task_id, lease.fence, text="x", usage=USAGE)])
        rate = (await door.queue.depth()).tokens_per_s
        assert rate > 0
        costs = [await submitted(door) for _ in range(3)]
        depth = await door.queue.depth()
        big = await door.http.post(TASKS, json=body(max_tokens=2048))
        assert (big.status_code, big.json()["error"]["code"]) == (503, "queue_full")
        wanted = depth.waiting_tokens / len(costs) / depth.tokens_per_s
        assert int(big.headers["Retry-After"]) == max(1, math.ceil(wanted))
        metrics = (await door.http.get("/metrics")).text
        assert re.search(r"^forebay_queue_tokens_per_second \d", metrics, re.MULTILINE)
        assert re.search(r"^forebay_queue_wait_seconds \d", metrics, re.MULTILINE)


async def test_a_webhook_waits_for_the_tasks_end_where_webhooks_are_on(redis, tmp_path, decoders):
    webhooks = WebhookDoor(Reach.from_words([], [443]))
    async with open_door(redis, tmp_path / "blobs", decoders, webhooks=webhooks) as door:
        bad = await door.http.post(TASKS, json=body(webhook_url="https://example.com:22/hook"))
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, "webhook_url")
        task = await submitted(door, webhook_url="https://example.com/hook")
        assert await redis.keys("*hooks*") == []
        await door.http.delete(task["urls"]["self"])
        assert await redis.keys("*hooks*") != []


async def test_the_docs_show_every_route_and_field(door):
    page = (await door.http.get("/docs")).text
    for path in ("", "/{task_id}", "/{task_id}/events", "/{task_id}/result", "/{task_id}/cancel"):
        assert f"{TASKS}{path}</code>" in page
    for word in (
        "Idempotency-Key",
        "Prefer",
        "deadline_s",
        "starting_after",
        "multipart/form-data",
    ):
        assert word in page
