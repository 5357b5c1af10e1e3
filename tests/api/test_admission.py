"""A refusal is cheap: nothing of the request is read, decoded or kept."""

from __future__ import annotations

import asyncio
import base64
import gzip
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from forebay.admission.held import HeldBytes
from forebay.admission.policy import Limits
from forebay.api.app import create_app
from forebay.api.load import LoadGauge
from forebay.api.parsing import parsed
from forebay.api.services import DoorSettings
from forebay.core.image_grid import visual_tokens
from forebay.queue.ports import Enqueued, NewTask
from forebay.queue.redis_queue import RedisQueue
from tests.admission.pictures import picture, png_that_claims
from tests.api.door import MODEL, PROFILE, Door, eventually, listening, open_door

FULL = Limits(context_tokens=PROFILE.context_tokens, max_waiting=3)


def decoder_processes() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if "decoder" in " ".join(child.cmdline())
    ]


def predict(content: bytes) -> dict:
    return {"files": {"image": ("a.jpg", content, "image/jpeg")}, "data": {"prompt": "what"}}


def chat(url: str) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what"}]
    return {"json": {"model": MODEL, "messages": [{"role": "user", "content": parts}]}}


@asynccontextmanager
async def connected(door: Door) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(door.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    yield reader, writer
    writer.transport.abort()


def head(path: str, kind: str, length: int) -> bytes:
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def fill(door: Door, count: int) -> None:
    for _ in range(count):
        answer = await door.http.post("/v1/tasks", json={"prompt": "hello"})
        assert answer.status_code == 202, answer.text


PATHS = (
    "/predict",
    "/v1/infer",
    "/v1/multimodal/inference",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/tasks",
)


@pytest.mark.parametrize("path", PATHS)
async def test_a_full_queue_refuses_before_the_body_is_read(redis, tmp_path, decoders, path):
    async with open_door(redis, tmp_path, decoders, limits=FULL) as door:
        await fill(door, 3)
        async with connected(door) as (reader, writer):
            writer.write(head(path, "application/json", 10_000_000))  # and not a byte of it
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert answer.startswith(b"HTTP/1.1 503 "), answer
            assert b"retry-after: " in answer.lower()
        assert await door.waiting() == 3
        metrics = (await door.http.get("/metrics")).text
        assert 'forebay_refused_total{code="queue_full"} 1.0' in metrics


async def test_a_request_sent_again_is_found_though_the_queue_is_full(redis, tmp_path, decoders):
    async with open_door(redis, tmp_path, decoders, limits=FULL) as door:
        again = {"json": {"prompt": "hello"}, "headers": {"Idempotency-Key": "once"}}
        first = await door.http.post("/v1/tasks", **again)
        await fill(door, 2)
        assert (await door.http.post("/v1/tasks", json={"prompt": "x"})).status_code == 503
        second = await door.http.post("/v1/tasks", **again)
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["id"] == first.json()["id"]


async def test_a_client_that_sends_all_of_a_refused_body_still_reads_the_refusal(
    redis, tmp_path, decoders
):
    async with open_door(redis, tmp_path, decoders, limits=FULL) as door:
        await fill(door, 3)
        for _ in range(3):  # the connection may serve again
            answer = await door.http.post("/predict", **predict(bytes(8_000_000)))
            assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")


async def test_a_burst_is_not_decoded_on_the_strength_of_one_look(door):
    services = replace(
        door.services, load=LoadGauge(door.queue, max_age_s=60), limits=replace(FULL, max_waiting=5)
    )
    async with (
        listening(create_app(services)) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http,
    ):
        answers = await asyncio.gather(
            *(http.post("/predict", **predict(picture(size=(40 + i, 40)))) for i in range(20))
        )
        counted = (await http.get("/metrics")).text
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [503] * 15
    assert "forebay_picture_decode_seconds_count 5.0" in counted
    assert await door.waiting() == 5


class CrowdedQueue:
    """A slow one, which notes how many were in ``enqueue`` at once."""

    def __init__(self, queue: RedisQueue) -> None:
        self._queue = queue
        self.inside = self.most = 0

    async def enqueue(self, task: NewTask) -> Enqueued:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(0.01)
            return await self._queue.enqueue(task)
        finally:
            self.inside -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


async def test_a_burst_stands_in_line_before_the_queues_server(door):
    crowded: Any = CrowdedQueue(door.queue)
    services = replace(door.services, queue=crowded, turns=asyncio.Semaphore(3))
    async with (
        listening(create_app(services)) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http,
    ):
        answers = await asyncio.gather(
            *(http.post("/v1/tasks", json={"prompt": f"hello {n}"}) for n in range(40))
        )
    assert {answer.status_code for answer in answers} == {202}
    assert crowded.most == 3
    assert await door.waiting() == 40


@pytest.mark.parametrize(
    ("content", "status", "figures"),
    [
        (png_that_claims(50_000, 40_000), 413, ("50000x40000", "2000000000", "50000000")),
        (picture("PNG", size=(5000, 2)), 422, ("200", "5000x2")),
    ],
)
async def test_the_limit_and_the_pictures_own_figure_are_told_and_nothing_is_decoded(
    door, content, status, figures
):
    letters = base64.b64encode(content).decode()
    garbage = "data:image/png;base64," + letters[:64] + "!" * 4_000
    for answer in (
        await door.http.post("/predict", **predict(content)),
        await door.http.post("/v1/chat/completions", **chat(garbage)),
    ):
        assert answer.status_code == status, answer.text
        assert all(figure in answer.text for figure in figures), answer.text
    assert decoder_processes() == []


async def test_the_visual_tokens_are_known_from_the_header(redis, tmp_path, decoders):
    narrow = Limits(context_tokens=1000)
    async with open_door(redis, tmp_path, decoders, limits=narrow) as door:
        claims = png_that_claims(2000, 2000)[:33]  # a header and nothing behind it
        answer = await door.http.post("/predict", **predict(claims))
    assert answer.status_code == 422
    assert answer.json()["code"] == "prompt_too_long"
    assert f"{visual_tokens(1024, 1024, PROFILE.rules)} visual tokens" in answer.text
    assert "1000" in answer.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/infer", "/v1/tasks", "/predict"])
async def test_a_packed_body_is_refused_for_what_it_is(door, path):
    packed = gzip.compress(b'{"prompt": "x"}')
    for encoding in ("gzip", "br", "GZIP, identity"):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        if path == "/predict":
            headers["Content-Type"] = "multipart/form-data; boundary=x"
        answer = await door.http.post(path, content=packed, headers=headers)
        assert answer.status_code == 400
        assert "Content-Encoding" in answer.text
    plain = {"prompt": "x", "model": MODEL, "messages": []}
    answer = await door.http.post("/v1/x", json=plain, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 404


async def test_a_body_that_dribbles_in_is_given_up(redis, tmp_path, decoders):
    held = HeldBytes(10**9)
    settings = DoorSettings(body_timeout_s=0.3)
    async with open_door(redis, tmp_path, decoders, settings=settings, held=held) as door:
        async with connected(door) as (reader, writer):
            writer.write(head("/v1/infer?prompt=x", "image/jpeg", 1_000_000) + bytes(50_000))
            await eventually(lambda: held.now == 50_000)
            answer = await asyncio.wait_for(reader.read(), 10)  # up to the connection's end
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert b"body_too_slow" in answer
        assert b"0.3 s" in answer
        assert held.now == 0
        assert await door.waiting() == 0


async def test_the_time_for_a_body_is_none_for_its_answer(redis, tmp_path, decoders):
    settings = DoorSettings(body_timeout_s=0.2, answer_timeout_s=1.0)
    async with open_door(redis, tmp_path, decoders, settings=settings) as door:
        answer = await door.http.post("/v1/infer", json={"prompt": "x"})
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "answer_timeout"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/infer", "/v1/tasks"])
async def test_a_long_body_is_parsed_beside_the_loop_and_its_faults_are_told(door, path):
    threads = set()

    def note(body: bytes) -> int:
        threads.add(threading.get_ident())
        return len(body)

    assert [await parsed(note, bytes(size)) for size in (5, 2_000_000)] == [5, 2_000_000]
    assert len(threads) == 2
    long = "x" * 2_000_000
    answer = await door.http.post(path, content=f'{{"prompt": "{long}"'.encode())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    answer = await door.http.post(path, json={"prompts": long})
    assert answer.status_code == 400
    assert "prompts" in answer.text
