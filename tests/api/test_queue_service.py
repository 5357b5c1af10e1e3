"""The queue service's contract, played as its clients are written."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from forebay.core.request import ImagePart, Priority, TaskId, TextPart
from forebay.queue.ports import TaskError
from tests.admission.pictures import hostile, picture, png_that_claims
from tests.api.door import MODEL, Door, working


async def predict(door: Door, image: bytes | None = None, prompt: str | None = "What?", **more):
    files = {} if image is None else {"image": ("a.jpg", image, "image/jpeg")}
    fields = {} if prompt is None else {"prompt": prompt}
    return await door.http.post("/predict", files=files or None, data={**fields, **more})


async def result(door: Door, task_id: str) -> dict:
    async with asyncio.timeout(10):
        while True:
            answer = await door.http.get("/result", params={"task_id": task_id})
            assert answer.status_code == 200
            body = answer.json()
            if body["status"] != "pending":
                return body
            assert body == {"status": "pending", "task_id": task_id}
            await asyncio.sleep(0.02)


async def test_a_picture_is_submitted_then_pending_then_answered(door):
    submitted = await predict(door, picture(size=(80, 60)), "图中价格是多少?")
    assert submitted.status_code == 200
    body = submitted.json()
    assert set(body) == {"status", "task_id", "message"}
    assert body["status"] == "submitted"
    pending = await door.http.get("/result", params={"task_id": body["task_id"]})
    assert pending.json() == {"status": "pending", "task_id": body["task_id"]}
    async with working(door) as worker:
        answer = await result(door, body["task_id"])
    assert answer.pop("elapsed_ms") >= 0
    assert answer == {
        "task_id": body["task_id"],
        "status": "success",
        "response": "The price is 12.",
        "model": MODEL,
    }
    image, text = worker.seen[0].messages[0].parts
    assert isinstance(image, ImagePart)
    assert text == TextPart("图中价格是多少?")


async def test_a_failed_task_says_why(door):
    task_id = (await predict(door, picture())).json()["task_id"]
    async with working(door, lambda _: TaskError("inference_failed", "no luck")):
        answer = await result(door, task_id)
    assert answer == {"task_id": task_id, "status": "error", "error": "no luck", "model": MODEL}


@pytest.mark.parametrize(
    ("image", "prompt"), [(None, "What?"), (b"", "What?"), (b"x", None), (b"x", "  "), (None, None)]
)
async def test_a_missing_part_is_refused_in_the_exact_words(door, image, prompt):
    refused = await predict(door, image, prompt)
    assert refused.status_code == 400
    assert refused.json() == {"error": "Missing image or prompt"}
    assert await door.waiting() == 0


async def test_a_picture_sent_as_a_field_is_a_missing_part(door):
    refused = await door.http.post("/predict", data={"image": "a.jpg", "prompt": "What?"})
    assert refused.json() == {"error": "Missing image or prompt"}


async def test_a_json_body_is_a_missing_part(door):
    refused = await door.http.post("/predict", json={"prompt": "What?"})
    assert (refused.status_code, refused.json()) == (400, {"error": "Missing image or prompt"})


async def test_a_result_without_an_id_is_a_bad_request(door):
    refused = await door.http.get("/result")
    assert (refused.status_code, refused.json()) == (400, {"error": "Missing task_id"})


@pytest.mark.parametrize("task_id", ["nobody", "x" * 5000, "{fb:main}:meta", "\n*3"])
async def test_an_unknown_task_is_not_found(door, task_id):
    refused = await door.http.get("/result", params={"task_id": task_id})
    assert refused.status_code == 404
    assert refused.json()["code"] == "task_not_found"


async def test_a_burst_is_accepted_and_every_task_has_its_own_answer(door):
    async with working(door, lambda request: [request.messages[0].parts[1].text]):
        submitted = await asyncio.gather(
            *(predict(door, picture(size=(30 + n, 40)), f"question {n}") for n in range(50))
        )
        assert {answer.status_code for answer in submitted} == {200}
        ids = [answer.json()["task_id"] for answer in submitted]
        assert len(set(ids)) == 50
        answers = await asyncio.gather(*(result(door, task_id) for task_id in ids))
    assert [answer["response"] for answer in answers] == [f"question {n}" for n in range(50)]


async def test_a_priority_is_kept_and_another_word_refused(door):
    vip = (await predict(door, picture(), priority="vip")).json()["task_id"]
    record = await door.queue.get(TaskId(vip))
    assert record is not None
    assert record.priority == Priority.VIP
    assert (await predict(door, picture(), priority="first")).status_code == 400


async def test_an_unknown_field_is_refused_by_name(door):
    refused = await predict(door, picture(), logit_bias="1")
    assert refused.status_code == 400
    assert "logit_bias" in refused.json()["error"]


async def test_a_hostile_file_is_a_clean_refusal_and_nothing_is_enqueued(door):
    for name, content in hostile().items():
        refused = await predict(door, content)
        assert refused.status_code in (413, 422), name
        assert refused.json()["code"] in ("invalid_image", "image_too_large"), name
    assert await door.waiting() == 0


async def test_a_giant_is_refused_before_any_decoder_starts(door):
    refused = await predict(door, png_that_claims(50_000, 50_000))
    assert refused.status_code == 413
    assert "2500000000 pixels, the limit is 50000000" in refused.json()["error"]
    assert door.services.metrics.registry.get_sample_value(
        "forebay_picture_decode_seconds_count"
    ) == 0  # fmt: skip


async def test_broken_multipart_is_a_bad_request(door):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"--x\r\ngarbage", b"--y\r\n\r\n", b"\x00" * 1000):
        refused = await door.http.post("/predict", content=body, headers=headers)
        assert refused.status_code == 400, refused.text
        assert "error" in refused.json()
    no_boundary = {"Content-Type": "multipart/form-data"}
    assert (await door.http.post("/predict", content=b"x", headers=no_boundary)).status_code == 400


async def test_a_plain_client_without_cookies_or_session_works(door):
    with httpx.Client(base_url=door.url, trust_env=False) as client:
        files = {"image": ("相片.png", picture("PNG"), "application/octet-stream")}
        answer = await asyncio.to_thread(
            client.post, "/predict", files=files, data={"prompt": "What?"}
        )
    assert answer.json()["status"] == "submitted"
