"""``POST /v1/infer`` in each of its forms, and pictures by URL everywhere."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL import Image
from redis.asyncio import Redis

from forebay.admission.fetch import FetchBounds, PictureFetcher
from forebay.admission.held import HeldBytes
from forebay.admission.policy import Limits
from forebay.admission.pool import DecoderPool
from forebay.api.services import DoorSettings
from forebay.core.request import ImagePart, Priority
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.reach import Reach
from tests.admission.pictures import picture
from tests.api.door import MODEL, PROFILE, Door, data_url, eventually, open_door, working
from tests.outbound.raw_server import RawServer, ok

PROMPT = "图中价格是多少?"
MOST = 200_000


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer({"/a.jpg": ok(picture(size=(90, 60)))}).listening() as server:
        yield server


def fetcher(
    *ports: int, held: HeldBytes | None = None, allow: tuple[str, ...] = ("127.0.0.1",)
) -> PictureFetcher:
    bounds = Bounds(total_s=2, body_bytes=MOST, redirects=2)
    client = SafeClient(Reach.from_words(allow, ports), bounds)
    return PictureFetcher(client, held or HeldBytes(), FetchBounds(most_bytes=MOST))


@pytest.fixture
async def fetching(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, server: RawServer
) -> AsyncIterator[Door]:
    held = HeldBytes(10 * MOST)
    fetching = fetcher(server.port, held=held)
    async with open_door(redis, tmp_path, decoders, held=held, fetcher=fetching) as door:
        yield door


def as_json(content: bytes) -> dict:
    return {"json": {"image": data_url(content), "prompt": PROMPT, "max_tokens": 9}}


def as_base64_in_lines(content: bytes) -> dict:
    return {
        "json": {
            "image": base64.encodebytes(content).decode(),
            "prompt": PROMPT,
            "max_tokens": 9,
        }
    }


def as_multipart(content: bytes) -> dict:
    files = {"image": ("a.jpg", content, "image/jpeg")}
    return {"files": files, "data": {"prompt": PROMPT, "max_tokens": "9"}}


def as_multipart_text(content: bytes) -> dict:
    files = {"image": (None, base64.b64encode(content)), "prompt": (None, PROMPT)}
    return {"files": {**files, "max_tokens": (None, "9")}}


def as_file_with_query(content: bytes) -> dict:
    params = {"prompt": PROMPT, "max_tokens": "9"}
    return {"content": content, "headers": {"Content-Type": "image/jpeg"}, "params": params}


def as_file_with_header(content: bytes) -> dict:
    headers = {"Content-Type": "application/octet-stream", "X-Prompt": quote(PROMPT)}
    return {"content": content, "headers": headers, "params": {"max_tokens": "9"}}


FORMS = [
    as_json, as_base64_in_lines, as_multipart, as_multipart_text, as_file_with_query,
    as_file_with_header,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_asks_the_same(door, form):
    async with working(door) as worker:
        answer = await door.http.post("/v1/infer", **form(picture(size=(90, 60))))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["X-Forebay-Task-Id"] == body.pop("task_id")
    assert body.pop("elapsed_ms") >= 0
    assert body == {
        "status": "success",
        "response": "The price is 12.",
        "model": MODEL,
        "usage": {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43},
    }
    (request,) = worker.seen
    image, text = request.messages[0].parts
    assert isinstance(image, ImagePart)
    assert (image.width, image.height, text.text) == (90, 60, PROMPT)
    assert request.sampling.max_tokens == 9


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"json": {"image": "aGk="}}, "missing_part"),
        ({"json": {"prompt": "x", "prompts": 1}}, "invalid_request"),
        ({"content": b"<a/>", "headers": {"Content-Type": "text/xml"}}, "invalid_request"),
        ({"content": b"", "headers": {"Content-Type": "image/png"}, "params": {"prompt": "x"}},
         "missing_part"),
        ({"content": picture(), "headers": {"Content-Type": "image/png"}}, "missing_part"),
        ({"content": picture(), "headers": {"Content-Type": "image/png", "X-Prompt": "%ff"}},
         "invalid_request"),
        ({"content": b"no picture", "headers": {"Content-Type": "image/png", "X-Prompt": "x"}},
         "invalid_image"),
        ({"content": picture(), "headers": {"Content-Type": "image/png", "X-Prompt": "x"},
          "params": {"image": "x"}}, "invalid_request"),
        ({"files": {"image": b""}, "data": {"prompt": "x"}}, "missing_part"),
        ({"files": {"image": picture(), "prompt": b"x"}}, "invalid_request"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_refused_in_form(door, request_, code):
    refused = await door.http.post("/v1/infer", **request_)
    assert refused.status_code in (400, 422)
    assert refused.json()["error"]["code"] == code
    assert await door.waiting() == 0


async def test_priority_and_idempotency_are_kept(door):
    body = {"prompt": "Hello", "priority": "vip"}
    headers = {"Idempotency-Key": "one"}
    async with working(door):
        first = await door.http.post("/v1/infer", json=body, headers=headers)
        again = await door.http.post("/v1/infer", json=body, headers=headers)
    assert first.json()["task_id"] == again.json()["task_id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    record = await door.queue.get(first.json()["task_id"])
    assert record.priority == Priority.VIP


async def test_a_client_that_hangs_up_cancels_its_call(door):
    with pytest.raises(httpx.ReadTimeout):
        await door.http.post("/v1/infer", json={"prompt": "Hello"}, timeout=0.3)
    await eventually(lambda: none_waits(door))


async def none_waits(door: Door) -> bool:
    return await door.waiting() == 0


@pytest.mark.parametrize("path", ["/v1/infer", "/v1/multimodal/inference", "/v1/tasks"])
async def test_a_picture_is_fetched_by_its_url(fetching, server, path):
    url = f"http://127.0.0.1:{server.port}/a.jpg"
    async with working(fetching) as worker:
        answer = await fetching.http.post(path, json={"image": url, "prompt": "What?"})
        assert answer.status_code in (200, 202), answer.text
        await eventually(lambda: worker.seen)
    assert (worker.seen[0].images[0].width, worker.seen[0].images[0].height) == (90, 60)
    assert "127.0.0.1" not in str(answer.headers)


async def test_chat_fetches_pictures_and_a_second_request_takes_the_kept_one(fetching, server):
    image = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{server.port}/a.jpg"}}
    text = {"type": "text", "text": "What?"}
    body = {"model": "glm-4v-flash", "messages": [{"role": "user", "content": [image, text]}]}
    async with working(fetching):
        for _ in range(2):
            answer = await fetching.http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
    assert server.paths == ["/a.jpg"]


@pytest.mark.parametrize(
    ("path", "word"),
    [("/gone", "answered 404"), ("/large", "larger than"), ("/none", "no picture")],
)
async def test_what_came_wrong_is_told_without_a_word_of_the_host(fetching, server, path, word):
    server.answers |= {
        "/gone": b"HTTP/1.1 404 Secret\r\nContent-Length: 6\r\n\r\nsecret",
        "/large": ok(bytes(MOST + 1)),
        "/none": ok(b"secret"),
    }
    body = {"image": f"http://127.0.0.1:{server.port}{path}", "prompt": "What?"}
    refused = await fetching.http.post("/v1/infer", json=body)
    assert refused.status_code == 422
    error = refused.json()["error"]
    if word == "no picture":
        assert error["code"] == "invalid_image"
    else:
        assert (error["code"], error["param"]) == ("image_url_failed", "image")
        assert word in error["message"]
    assert "ecret" not in refused.text
    assert fetching.services.held.now == 0


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/a.jpg", "http://169.254.169.254/latest", "http://localhost/a",
            "ftp://example.com/a.jpg", "file:///etc/passwd", "http://[::1]/a"],
)  # fmt: skip
async def test_addresses_inside_are_not_asked(redis, tmp_path, decoders, server, url):
    reach = fetcher(server.port, 80, allow=())
    async with open_door(redis, tmp_path, decoders, fetcher=reach) as door:
        refused = await door.http.post("/v1/infer", json={"image": url, "prompt": "What?"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "image_url_failed")
    assert server.connections == 0


async def test_a_full_queue_is_refused_before_anything_is_fetched(
    redis, tmp_path, decoders, server
):
    limits = Limits(context_tokens=PROFILE.context_tokens, max_waiting=1)
    body = {"image": f"http://127.0.0.1:{server.port}/a.jpg", "prompt": "What?"}
    async with open_door(
        redis, tmp_path, decoders, fetcher=fetcher(server.port), limits=limits
    ) as door:
        assert (await door.http.post("/v1/tasks", json=body)).status_code == 202
        refused = await door.http.post("/v1/infer", json={**body, "prompt": "And now?"})
    assert refused.json()["error"]["code"] == "queue_full"
    assert len(server.asked) == 1


async def test_the_bytes_of_all_requests_are_bounded_together(redis, tmp_path, decoders):
    held = HeldBytes(100_000)
    settings = DoorSettings(max_body_bytes=90_000)
    begun = asyncio.Event()

    async def slowly():
        yield b"x" * 60_000
        begun.set()
        await asyncio.sleep(30)
        yield b""

    async with open_door(redis, tmp_path, decoders, held=held, settings=settings) as door:
        slow = asyncio.create_task(door.http.post("/v1/infer", content=slowly()))
        await begun.wait()
        await eventually(lambda: held.now == 60_000)
        for content in (b"x" * 50_000, in_pieces(50_000)):
            refused = await door.http.post("/v1/infer", content=content)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "door_full")
            assert refused.headers["Retry-After"] == "1"
        async with working(door):
            small = await door.http.post("/v1/infer", json={"prompt": "x" * 1000})
            assert small.status_code == 200
        slow.cancel()
        await eventually(lambda: held.now == 0)


async def in_pieces(total: int):
    for _ in range(total // 1000):
        yield b"x" * 1000


async def test_nothing_is_held_while_an_answer_is_waited_for(door):
    asking = asyncio.create_task(door.http.post("/v1/infer", **as_json(picture())))
    await eventually(lambda: one_waits(door))
    await eventually(lambda: door.services.held.now == 0)  # once its picture is safe
    assert not asking.done()
    async with working(door):
        assert (await asking).status_code == 200


async def one_waits(door: Door) -> bool:
    return await door.waiting() == 1


@pytest.mark.parametrize("path", ["/v1/infer", "/predict", "/v1/tasks"])
async def test_a_picture_is_kept_without_loss_on_request(door, path):
    noise = Image.effect_noise((64, 48), 90).convert("RGB")
    out = io.BytesIO()
    noise.save(out, "PNG")
    files = {"image": ("a.png", out.getvalue(), "image/png")}
    async with working(door) as worker:
        data = {"prompt": "What?", "image_lossless": "true"}
        assert (await door.http.post(path, files=files, data=data)).status_code in (200, 202)
        await eventually(lambda: worker.seen)
    stored = await door.services.blobs.get(worker.seen[0].images[0].sha256)
    assert Image.open(io.BytesIO(stored)).tobytes() == noise.tobytes()
