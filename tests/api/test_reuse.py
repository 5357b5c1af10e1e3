"""Equal requests at temperature 0 share an answer, and the response says so; others never do."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client import generate_latest
from redis.asyncio import Redis
from starlette.datastructures import Headers

from forebay.admission.pool import DecoderPool
from forebay.api.reuse import CacheWishes, cache_wishes, same_answer
from forebay.api.services import DoorSettings
from forebay.core.constraint import Constraint, ConstraintKind
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    Tenant,
    TextPart,
)
from tests.api.door import MODEL, Door, data_url, eventually, open_door, working

REUSE = DoorSettings(reuse_answers=True)
ASKED = InferenceRequest(
    "m",
    (Message(Role.USER, (ImagePart("a" * 64, 28, 28), TextPart("x"))),),
    SamplingParams(max_tokens=5),
)


@pytest.fixture
async def door(redis: Redis, tmp_path: Path, decoders: DecoderPool) -> AsyncIterator[Door]:
    async with open_door(redis, tmp_path / "blobs", decoders, settings=REUSE) as door:
        yield door


def digest(request: InferenceRequest, tenant: str = "t", **settings: Any) -> str | None:
    same = same_answer(request, Tenant(tenant), CacheWishes(), replace(REUSE, **settings))
    return same and same.digest


def saying(*parts: Any) -> InferenceRequest:
    return replace(ASKED, messages=(Message(Role.USER, parts),))


PICTURE, WORD = ASKED.messages[0].parts


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, model="n"),
        saying(ImagePart("b" * 64, 28, 28), WORD),
        saying(PICTURE, TextPart("x ")),
        saying(WORD, PICTURE),
        saying(PICTURE, PICTURE, WORD),
        saying(PICTURE, TextPart("x"), TextPart("")),
        replace(ASKED, messages=(Message(Role.SYSTEM, ASKED.messages[0].parts),)),
        replace(ASKED, messages=ASKED.messages * 2),
        *(
            replace(ASKED, sampling=replace(ASKED.sampling, **{name: value}))
            for name, value in {
                "max_tokens": 6,
                "n": 2,
                "stop": (".",),
                "stop_token_ids": (7,),
                "min_tokens": 1,
                "logprobs": 0,
                "ignore_eos": True,
                "repetition_penalty": 1.1,
                "presence_penalty": 0.1,
                "constraint": Constraint(ConstraintKind.REGEX, "a"),
            }.items()
        ),
    ],
)
def test_whatever_differs_is_another_answer(other: InferenceRequest) -> None:
    assert digest(other) not in (None, digest(ASKED))


def test_a_seed_decides_nothing_at_temperature_0() -> None:
    assert digest(replace(ASKED, sampling=replace(ASKED.sampling, seed=1))) == digest(ASKED)


def test_tenants_have_their_own_unless_they_are_set_to_share() -> None:
    assert digest(ASKED, "t") != digest(ASKED, "u")
    assert digest(ASKED, "t", share_answers=True) == digest(ASKED, "u", share_answers=True)


def test_chance_is_not_shared_and_nothing_is_where_it_is_off() -> None:
    assert digest(replace(ASKED, sampling=SamplingParams(temperature=0.1))) is None
    assert digest(ASKED, reuse_answers=False) is None


@pytest.mark.parametrize(
    ("value", "wishes"),
    [
        (None, CacheWishes()),
        ("no-cache", CacheWishes(read=False)),
        ("max-age=0", CacheWishes(read=False)),
        ("No-Store", CacheWishes(read=False, keep=False)),
        ("public, no-cache , x=1", CacheWishes(read=False)),
        ("max-age=60", CacheWishes()),
    ],
)
def test_cache_control_is_read_as_http_has_it(value: str | None, wishes: CacheWishes) -> None:
    assert cache_wishes(Headers({"cache-control": value} if value else {})) == wishes


def shown(shade: int = 0) -> bytes:
    """A picture in which one pixel has its shade."""
    image = Image.new("RGB", (56, 56), (200, 30, 30))
    image.putpixel((3, 3), (shade, 255, 255))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def body(**more: Any) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": data_url(shown(more.pop("shade", 0)))}}
    content = [picture, {"type": "text", "text": "价格?"}]
    asked = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    return {**asked, "temperature": 0, **more}


async def ask(door: Door, headers: dict[str, str] | None = None, **more: Any) -> tuple[str, str]:
    answer = await door.http.post("/v1/chat/completions", json=body(**more), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-forebay-cache"], answer.json()["choices"][0]["message"]["content"]


async def test_an_equal_request_gets_the_answer_that_was_kept(door: Door) -> None:
    async with working(door) as worker:
        assert await ask(door) == ("miss", "The price is 12.")
        assert await ask(door) == ("hit", "The price is 12.")
        assert len(worker.seen) == 1
    counted = generate_latest(door.services.metrics.registry).decode()
    assert 'forebay_answers_reused_total{how="cached"} 1.0' in counted


async def test_near_equal_requests_are_computed(door: Door) -> None:
    async with working(door) as worker:
        for more in ({}, {"shade": 255}, {"max_tokens": 7}, {"stop": ["."]}, {"n": 2}):
            assert (await ask(door, **more))[0] == "miss"
        assert (await ask(door, temperature=0.5))[0] == "miss"
        assert (await ask(door, temperature=0.5))[0] == "miss"
        assert len(worker.seen) == 7


async def test_a_request_can_ask_for_a_run_of_its_own_or_for_no_trace(door: Door) -> None:
    async with working(door) as worker:
        assert (await ask(door, {"Cache-Control": "no-store"}))[0] == "miss"
        assert (await ask(door))[0] == "miss"
        assert (await ask(door, {"Cache-Control": "no-cache"}))[0] == "miss"
        assert (await ask(door))[0] == "hit"
        assert len(worker.seen) == 3


async def test_equal_requests_in_flight_share_one_run_in_every_form(door: Door) -> None:
    async def streamed() -> tuple[str, str]:
        asked = body(stream=True)
        async with door.http.stream("POST", "/v1/chat/completions", json=asked) as answer:
            text = (await answer.aread()).decode()
        return answer.headers["x-forebay-cache"], text

    first = asyncio.create_task(ask(door))
    await eventually(door.waiting)
    others = [asyncio.create_task(ask(door)), asyncio.create_task(streamed())]

    async def joined() -> bool:
        keys = [key async for key in door.queue._redis.scan_iter(match="*}:f:*")]
        return bool(keys) and await door.queue._redis.zcard(keys[0]) == 2

    await eventually(joined)
    async with working(door) as worker:
        assert await first == ("miss", "The price is 12.")
        plain, (how, events) = await asyncio.gather(*others)
    assert plain == ("joined", "The price is 12.")
    assert how == "joined"
    assert '"The "' in events
    assert events.endswith("data: [DONE]\n\n")
    assert len(worker.seen) == 1


async def test_a_client_that_hangs_up_leaves_those_who_joined_it_their_answer(door: Door) -> None:
    first = asyncio.create_task(ask(door))
    await eventually(door.waiting)
    second = asyncio.create_task(ask(door))
    await eventually(door.services.metrics.answers_reused.labels("joined")._value.get)
    first.cancel()
    await eventually(door.services.metrics.abandoned._value.get)
    async with working(door) as worker:
        assert await second == ("joined", "The price is 12.")
    assert len(worker.seen) == 1


async def test_the_queue_service_says_it_too(door: Door) -> None:
    async with working(door):
        for said in ("miss", "hit"):
            files = {"image": ("a.png", shown(), "image/png")}
            fields = {"prompt": "价格?", "temperature": "0"}
            answer = await door.http.post("/predict", files=files, data=fields)
            assert answer.headers["x-forebay-cache"] == said
            task = answer.json()["task_id"]

            async def answered(task: str = task) -> bool:
                found = await door.http.get("/result", params={"task_id": task})
                return found.json().get("response") == "The price is 12."

            await eventually(answered)
