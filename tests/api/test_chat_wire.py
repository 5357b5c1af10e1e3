"""Chat completions on the wire: refusals, hang-ups, redeliveries, time."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import httpx
import pytest

from forebay.admission.policy import Limits
from forebay.api import intake
from forebay.api.chat_form import read_chat_form
from forebay.api.services import DoorSettings
from forebay.core.errors import InvalidRequestError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Outcome, StreamWrite
from tests.admission.pictures import hostile, picture
from tests.api.door import MODEL, Door, data_url, eventually, open_door, working

CHAT = "/v1/chat/completions"


def body(content="hi", **more) -> dict:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


def with_url(url: str) -> dict:
    return body([{"type": "image_url", "image_url": {"url": url}}])


def events(text: str) -> list:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def said(found: list) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in found if c.get("choices"))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000])
async def test_bad_json_is_a_bad_request_in_openai_form(door, raw):
    refused = await door.http.post(CHAT, content=raw)
    assert refused.status_code == 400
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert await door.waiting() == 0


HALF = "\ud83d"


@pytest.mark.parametrize(
    "wrong",
    [{HALF: 1}, {"model": HALF}, {"stop": HALF}, {"messages": [{"role": "user", "content": HALF}]}],
)
async def test_half_a_character_is_a_bad_request(door, wrong):
    refused = await door.http.post(CHAT, content=json.dumps({**body(), **wrong}))
    assert refused.status_code == 400
    whole = await door.http.post(CHAT, content=json.dumps({**body("😀"), "model": "😀"}))
    assert whole.json()["error"]["code"] == "model_not_found"
    assert await door.waiting() == 0


@pytest.mark.parametrize(
    "many",
    [
        {"metadata": [[]] * 500_000},
        {"messages": [{"role": "user", "content": [1] * 300_000}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 1001}]},
        {"messages": [1] * 300_000},
        {"stop": [1] * 300_000},
    ],
)
def test_a_body_of_very_many_values_is_refused_without_looking_at_each(many):
    raw = json.dumps({**body(), **many}).encode()
    began = time.process_time()
    with pytest.raises(InvalidRequestError):
        read_chat_form(raw)
    assert time.process_time() - began < 1.0


async def test_more_pictures_than_are_taken_are_refused_unread(door, monkeypatch):
    monkeypatch.setattr(intake, "read_header", None)
    pictures = with_url("AAAA")["messages"][0]["content"] * 17
    refused = await door.http.post(CHAT, json=body(pictures))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/secret",
        "https://example.com/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "data:image/png,plain",
        "data:image/png;base64",
    ],
)
async def test_a_url_that_would_be_fetched_is_refused(door, url):
    refused = await door.http.post(CHAT, json=with_url(url))
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages.0.content.0.image_url.url"


@pytest.mark.parametrize("url", ["", "not base64!", "data:image/png;base64,@@@@", "aGVsbG8="])
async def test_base64_without_a_picture_is_refused(door, url):
    refused = await door.http.post(CHAT, json=with_url(url))
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "invalid_image"


async def test_plain_base64_and_any_media_type_are_taken(door):
    plain = base64.b64encode(picture("WEBP")).decode()
    async with working(door):
        for url in (plain, data_url(picture("PNG"), "text/html"), data_url(picture(), "")):
            assert (await door.http.post(CHAT, json=with_url(url))).status_code == 200


async def test_a_hostile_picture_is_a_clean_refusal(door):
    for name, content in hostile().items():
        refused = await door.http.post(CHAT, json=with_url(data_url(content)))
        assert refused.status_code in (413, 422), name
    assert await door.waiting() == 0


async def test_one_bad_picture_among_good_ones_enqueues_nothing(door):
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(content)}}
        for content in (picture(), hostile()["png-header-only"], picture())
    ]
    refused = await door.http.post(CHAT, json=body(parts))
    assert refused.status_code == 422
    assert await door.waiting() == 0
    assert door.services.decoders.kills == 0


async def test_what_cannot_fit_the_context_is_refused(door):
    refused = await door.http.post(CHAT, json=body("x" * 200_000))
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "prompt_too_long"
    assert await door.waiting() == 0


async def test_a_client_that_hangs_up_cancels_its_plain_call(door):
    call = asyncio.create_task(door.http.post(CHAT, json=body()))
    await eventually(door_waits(door))
    call.cancel()
    await eventually(lambda: is_empty(door))
    assert door.services.metrics.registry.get_sample_value("forebay_abandoned_total") == 1


async def test_a_client_that_hangs_up_cancels_its_stream(door):
    async with door.http.stream("POST", CHAT, json=body(stream=True)) as stream:
        first = await anext(stream.aiter_lines())
        task_id = json.loads(first.removeprefix("data: "))["id"].removeprefix("chatcmpl-")
    await eventually(lambda: is_empty(door))
    record = await door.queue.get(TaskId(task_id))
    assert record is not None
    assert record.state is State.CANCELLED


def door_waits(door: Door):
    async def waits() -> bool:
        return await door.waiting() == 1

    return waits


async def is_empty(door: Door) -> bool:
    return await door.waiting() == 0


async def test_a_plain_call_that_waits_too_long_ends_and_is_cancelled(redis, tmp_path, decoders):
    settings = DoorSettings(answer_timeout_s=0.2)
    async with open_door(redis, tmp_path, decoders, settings=settings) as door:
        late = await door.http.post(CHAT, json=body())
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "answer_timeout"
        assert await door.waiting() == 0


async def test_a_silent_stream_is_kept_open_by_comments(redis, tmp_path, decoders):
    settings = DoorSettings(keep_alive_s=0.05)
    async with (
        open_door(redis, tmp_path, decoders, settings=settings) as door,
        door.http.stream("POST", CHAT, json=body(stream=True)) as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        while not (await anext(lines)).startswith(": "):
            pass


async def redelivered(door: Door, first: list[str], second: list[str]) -> str:
    """Play a worker that dies after ``first``, and its successor who says ``second``."""
    call = asyncio.create_task(door.http.post(CHAT, json=body(stream=True)))
    await eventually(door_waits(door))
    for worker, deltas in (("doomed", first), ("heir", second)):
        [lease] = await door.queue.claim(worker, 1, 10**9)
        for delta in deltas:
            await door.streams.append([StreamWrite(lease.task_id, lease.fence, delta, 1)])
        await door.queue.reap("doomed")
    await door.queue.finish([Outcome(lease.task_id, lease.fence, text="".join(second))])
    return (await call).text


async def test_after_a_redelivery_the_client_sees_the_answer_once(door):
    found = events(await redelivered(door, ["one ", "two "], ["one", " two", " three"]))
    assert said(found) == "one two three"
    assert found[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_second_attempt_that_says_something_else_is_an_error(door):
    found = events(await redelivered(door, ["one ", "two "], ["one ", "three"]))
    assert found[-1]["error"]["code"] == "answer_changed"
    found = events(await redelivered(door, ["one ", "two "], ["one "]))
    assert found[-1]["error"]["code"] == "answer_changed"


async def test_a_full_queue_is_refused_with_retry_after(redis, tmp_path, decoders):
    limits = Limits(context_tokens=4096, max_waiting=1)
    async with open_door(redis, tmp_path, decoders, limits=limits) as door:
        first = asyncio.create_task(door.http.post(CHAT, json=body()))
        await eventually(door_waits(door))
        refused = await door.http.post(CHAT, json=body())
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) >= 1
        async with working(door):
            assert (await first).status_code == 200


async def test_the_queues_own_cap_is_told_as_well(redis, tmp_path, decoders):
    capped = QueueLimits(max_waiting=1)
    async with open_door(redis, tmp_path, decoders, queue_limits=capped) as door:
        answers = [await door.http.post("/predict", **predict()) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 503]
        assert "Retry-After" in answers[1].headers


def predict() -> dict:
    return {"files": {"image": picture()}, "data": {"prompt": "?"}}


async def test_a_long_answer_to_a_slow_reader_is_whole(door):
    words = [f"word{n} " for n in range(3000)]
    async with (
        working(door, lambda _: words),
        door.http.stream("POST", CHAT, json=body(stream=True)) as stream,
    ):
        text = ""
        async for piece in stream.aiter_text():
            text += piece
            await asyncio.sleep(0.001)
    assert said(events(text)) == "".join(words)


async def test_a_client_that_closes_in_mid_body_leaves_nothing(door):
    async def half():
        yield b'{"model":'
        raise httpx.ReadError("gone")

    with pytest.raises(httpx.ReadError):
        await door.http.post(CHAT, content=half(), headers={"Content-Length": "1000"})
    counted = f'forebay_http_requests_total{{method="POST",route="{CHAT}",status="499"}} 1.0'

    async def is_counted():
        return counted in (await door.http.get("/metrics")).text

    await eventually(is_counted)
    assert await door.waiting() == 0


async def test_a_streamed_answer_names_its_task_and_goes_on_as_a_tasks_events(door):
    async with working(door), door.http.stream("POST", CHAT, json=body(stream=True)) as reply:
        task_id = reply.headers["X-Forebay-Task-Id"]
        text = (await reply.aread()).decode()
    place = next(line[4:] for line in text.splitlines() if line.startswith("id: "))
    first = said(events(text[: text.index("\n\n", text.index(place))] + "\n\ndata: [DONE]"))
    path = f"/v1/tasks/{task_id}/events"
    more = await door.http.get(path, params={"starting_after": place})
    lines = [line[6:] for line in more.text.splitlines() if line.startswith("data: ")]
    rest = [json.loads(line) for line in lines]
    assert first + "".join(one.get("text", "") for one in rest) == said(events(text))
    assert rest[-1]["status"] == "finished"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_request_sent_again_under_its_key_is_one_task_with_one_answer(door, stream):
    asked, headers = body(stream=stream), {"Idempotency-Key": "chat-1"}
    async with working(door) as worker:
        first = await door.http.post(CHAT, json=asked, headers=headers)
        again = await door.http.post(CHAT, json=asked, headers=headers)
        other = await door.http.post(CHAT, json=body("else"), headers=headers)
    assert len(worker.seen) == 1
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["X-Forebay-Task-Id"] == first.headers["X-Forebay-Task-Id"]
    assert other.status_code == 409
    if stream:
        assert said(events(first.text)) == said(events(again.text)) == "The price is 12."
    else:
        assert first.json() == again.json()


async def test_who_hangs_up_with_a_key_finds_the_answer_later(door):
    """Without one the task ends with its client; with one the client is expected back."""
    asked, headers = body(stream=True), {"Idempotency-Key": "chat-2"}
    async with door.http.stream("POST", CHAT, json=asked, headers=headers) as reply:
        await anext(reply.aiter_bytes())
    registry = door.services.metrics.registry
    await eventually(lambda: registry.get_sample_value("forebay_abandoned_total") == 1.0)
    async with working(door):
        again = await door.http.post(CHAT, json=asked, headers=headers)
    assert said(events(again.text)) == "The price is 12."
