"""The high-concurrency service's contract, played as its clients are written, by the demo model."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from forebay.admission.pool import DecoderPool
from forebay.config import PACKAGE_FOLDER
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from tests.admission.pictures import picture
from tests.api.door import Door, data_url, open_door, working
from tests.api.engine_rig import answering

PATH = "/v1/multimodal/inference"
SAMPLES = json.loads((PACKAGE_FOLDER / "samples" / "samples.json").read_text(encoding="utf-8"))
RESULTS = {"approve": "approve", "通过": "approve", "reject": "reject", "拒绝": "reject"}


def samples(skill: str, most: int = 4) -> list[dict[str, str]]:
    return [one for one in SAMPLES if one["skill"] == skill][:most]


def bytes_of(sample: dict[str, str]) -> bytes:
    return (PACKAGE_FOLDER / "samples" / sample["file"]).read_bytes()


@pytest.fixture(scope="module")
def demo() -> Engine:
    folder = PACKAGE_FOLDER / "demo_model"
    return Engine.from_folder(folder, limits=EngineLimits(max_running=4), device="cpu")


@pytest.fixture
async def answered(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, demo: Engine
) -> AsyncIterator[Door]:
    prompts = PACKAGE_FOLDER / "demo_model" / "prompts"
    async with (
        open_door(redis, tmp_path / "blobs", decoders, prompts=prompts) as door,
        answering(door, demo),
    ):
        yield door


async def infer(door: Door, image: str | None, prompt: str, **more: Any) -> httpx.Response:
    body = {"image": image, "prompt": prompt, "max_tokens": 256, **more}
    return await door.http.post(PATH, json=body)


@pytest.mark.parametrize("sample", samples("review"), ids=lambda sample: sample["file"])
async def test_a_review_prompt_gets_a_result_its_reasons_and_confidence(answered, sample):
    answer = await infer(answered, data_url(bytes_of(sample)), sample["question"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Forebay-Template"] == "review"
    body = answer.json()
    assert list(body) == [
        "result", "reasons", "confidence", "inference_time_ms", "tokens_generated",
    ]  # fmt: skip
    word, _, reason = sample["answer"].replace("：", ":").partition(":")
    assert body["result"] == RESULTS[word]
    assert body["reasons"] == ([reason.strip()] if reason else [])
    assert 0.5 < body["confidence"] <= 1
    assert body["inference_time_ms"] >= 0
    assert body["tokens_generated"] > 0


async def test_any_other_prompt_is_answered_freely_in_the_same_envelope(answered):
    sample = samples("price")[0]
    image = base64.b64encode(bytes_of(sample)).decode()
    body = (await infer(answered, image, sample["question"])).json()
    content = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": sample["question"]},
    ]
    chat = await answered.http.post(
        "/v1/chat/completions",
        json={
            "model": "glm-4v-flash",
            "messages": [{"role": "user", "content": content}],
            "logprobs": True,
        },
    )
    told = chat.json()["choices"][0]["logprobs"]["content"]
    mean = sum(math.exp(one["logprob"]) for one in told) / len(told)
    assert body["result"] == sample["answer"] == chat.json()["choices"][0]["message"]["content"]
    assert body["reasons"] == []
    assert body["confidence"] == pytest.approx(mean, abs=1e-3)
    assert body["tokens_generated"] == chat.json()["usage"]["completion_tokens"]


async def test_text_alone_and_a_template_by_name(answered):
    free = await infer(answered, None, "审核", template="none")
    assert "X-Forebay-Template" not in free.headers
    named = await infer(answered, data_url(picture()), "What is this?", template="review")
    assert named.json()["result"] in ("approve", "reject", "review")


async def test_the_packages_own_template_holds_any_model_to_its_json(
    redis, tmp_path, decoders, demo
):
    async with open_door(redis, tmp_path, decoders) as door, answering(door, demo):
        answers = await asyncio.gather(
            *(
                infer(door, data_url(bytes_of(one)), one["question"], temperature=1, seed=seed)
                for seed, one in enumerate(samples("review", 3))
            )
        )
    for answer in answers:
        body = answer.json()
        assert body["result"] in ("approve", "reject", "review")
        assert all(isinstance(one, str) and len(one) <= 120 for one in body["reasons"])
        assert 0 <= body["confidence"] <= 1


async def test_a_template_that_an_operator_changed_is_followed(redis, tmp_path, decoders, demo):
    (tmp_path / "safety.toml").write_text(
        'name = "safety"\nform = "line"\npatterns = ["safe"]\nresults = ["safe", "nsfw"]\n'
        '[text]\nen = "{prompt}"\nzh = "{prompt}"\n',
        encoding="utf-8",
    )
    async with (
        open_door(redis, tmp_path / "blobs", decoders, prompts=tmp_path) as door,
        answering(door, demo),
    ):
        answer = await infer(door, data_url(picture()), "Is this SAFE for work?")
        assert answer.headers["X-Forebay-Template"] == "safety"
        assert answer.json()["result"] in ("safe", "nsfw")
        free = await infer(door, data_url(picture()), "approve or reject", max_tokens=4)
        assert "X-Forebay-Template" not in free.headers


async def test_an_answer_cut_before_its_result_says_so(answered):
    refused = await infer(answered, data_url(picture()), "approve or reject", max_tokens=1)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "max_tokens"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"template": "strict"}, "template"),
        ({"template": "review", "stop": ["x"]}, "template"),
        ({"template": "review", "guided_choice": ["a"]}, "template"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"logprobs": True}, "logprobs"),
        ({"image": 7}, "image"),
        ({"image": "https://example.com/a.jpg"}, "image"),
        ({"image": "not base64!"}, "image"),
        ({"priority": "first"}, "priority"),
        ({"model": "other"}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(door, fields, param):
    body = {"image": data_url(picture()), "prompt": "approve or reject", **fields}
    refused = await door.http.post(PATH, json=body)
    assert refused.status_code in (400, 404, 422)
    assert refused.json()["error"]["param"] == param
    assert await door.waiting() == 0


async def test_what_a_request_says_of_its_answer_comes_before_a_prompts_words(door):
    async with working(door) as worker:
        await infer(door, None, "approve or reject", guided_choice=["yes", "no"])
    assert worker.seen[0].sampling.constraint.text == '["yes", "no"]'


async def test_an_answer_that_is_not_in_the_form_is_the_upstreams_fault(door):
    async with working(door):
        failed = await infer(door, None, "approve or reject")
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "upstream_failed")


async def test_without_probabilities_there_is_no_confidence(door):
    async with working(door, lambda _: ['{"result": "approve", "reasons": []}']):
        body = (await infer(door, None, "approve or reject")).json()
    assert (body["result"], body["confidence"]) == ("approve", None)
