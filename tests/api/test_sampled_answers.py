"""From the ``openai`` client through door, worker and engine: what was asked is what comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest

from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from tests.admission.pictures import picture
from tests.api.door import MODEL, Door, data_url
from tests.api.engine_rig import answering
from tests.checkpoints import TINY, write_checkpoint

SCHEMA = {
    "type": "object",
    "properties": {
        "价": {"type": "integer", "maximum": 99, "minimum": 0},
        "ok": {"type": "boolean"},
    },
    "required": ["价", "ok"],
    "additionalProperties": False,
}  # fmt: skip
FORMAT = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"), replace(TINY, stop_tokens=()))


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Engine:
    return Engine.from_folder(checkpoint, limits=EngineLimits(max_running=8), device="cpu")


@pytest.fixture
async def client(door: Door, engine: Engine) -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx.AsyncClient(trust_env=False)
    async with (
        answering(door, engine),
        openai.AsyncOpenAI(
            base_url=f"{door.url}/v1", api_key="any", http_client=http, max_retries=0, timeout=120
        ) as client,
    ):
        yield client


def ask(text: str = "多少钱?") -> list:
    image = {"type": "image_url", "image_url": {"url": data_url(picture())}}
    return [{"role": "user", "content": [image, {"type": "text", "text": text}]}]


async def streamed(client: openai.AsyncOpenAI, **wishes) -> dict[int, dict]:
    """Return what a stream said of each answer: text, logprobs, why it ended."""
    stream = await client.chat.completions.create(
        model=MODEL, messages=ask(), stream=True, stream_options={"include_usage": True}, **wishes
    )
    said: dict[int, dict] = {}
    async for chunk in stream:
        for choice in chunk.choices:
            one = said.setdefault(choice.index, {"text": "", "logprobs": [], "reason": None})
            assert one["reason"] is None, "nothing follows the end of an answer"
            one["text"] += choice.delta.content or ""
            if choice.logprobs is not None:
                one["logprobs"] += choice.logprobs.content
            one["reason"] = choice.finish_reason
        if not chunk.choices:
            said[-1] = chunk.usage.model_dump()
    return said


async def test_answers_follow_the_schema_streamed_and_not(client):
    wishes = {"temperature": 1.2, "seed": 3, "n": 3, "response_format": FORMAT, "max_tokens": 120}
    whole = await client.chat.completions.create(model=MODEL, messages=ask(), **wishes)
    texts = [choice.message.content for choice in whole.choices]
    for at, choice in enumerate(whole.choices):
        value = json.loads(choice.message.content)
        assert set(value) == {"价", "ok"}
        assert 0 <= value["价"] <= 99
        assert isinstance(value["ok"], bool)
        assert (choice.index, choice.finish_reason) == (at, "stop")
    assert len(set(texts)) > 1
    said = await streamed(client, **wishes)
    usage = said.pop(-1)
    assert [said[at]["text"] for at in range(3)] == texts
    assert {one["reason"] for one in said.values()} == {"stop"}
    assert usage["completion_tokens"] == whole.usage.completion_tokens
    assert usage["prompt_tokens"] == whole.usage.prompt_tokens


async def test_logprobs_tell_every_token_streamed_and_not(client):
    wishes = {
        "temperature": 0.8, "seed": 11, "n": 2, "logprobs": True, "top_logprobs": 3,
        "max_tokens": 24, "extra_body": {"top_k": 40, "repetition_penalty": 1.2},
    }  # fmt: skip
    whole = await client.chat.completions.create(model=MODEL, messages=ask(), **wishes)
    assert whole.usage.completion_tokens == 48
    for choice in whole.choices:
        told = choice.logprobs.content
        assert len(told) == 24
        for token in told:
            assert token.logprob <= 0
            likeliest = [one.logprob for one in token.top_logprobs]
            assert len(likeliest) == 3
            assert likeliest == sorted(likeliest, reverse=True)
            assert token.logprob <= likeliest[0] + 1e-6
            assert bytes(token.bytes).decode(errors="replace") == token.token
    said = await streamed(client, **wishes)
    for choice in whole.choices:
        assert said[choice.index]["text"] == choice.message.content
        assert said[choice.index]["logprobs"] == choice.logprobs.content
        assert said[choice.index]["reason"] == "length"


async def test_a_seed_gives_the_same_answer_whatever_runs_beside_it(client):
    async def asked(seed: int) -> str:
        answer = await client.chat.completions.create(
            model=MODEL, messages=ask(), seed=seed, temperature=1.0, max_tokens=20
        )
        return answer.choices[0].message.content

    alone = await asked(5)
    among = await asyncio.gather(*(asked(seed) for seed in (1, 5, 2, 5, 3)))
    assert among[1] == among[3] == alone
    assert len(set(among)) == 4


async def test_vllms_own_fields_are_honoured(client):
    answer = await client.chat.completions.create(
        model=MODEL, messages=ask(), temperature=1.0, n=4, max_tokens=30,
        extra_body={"guided_choice": ["是的", "不是"]},
    )  # fmt: skip
    assert {choice.message.content for choice in answer.choices} <= {"是的", "不是"}
    answer = await client.chat.completions.create(
        model=MODEL, messages=ask(), max_tokens=30,
        extra_body={"structured_outputs": {"regex": "¥[0-9]{1,3}\\.[0-9]{2}"}},
    )  # fmt: skip
    assert answer.choices[0].message.content.startswith("¥")


async def test_a_token_id_outside_the_vocabulary_is_told_by_the_worker(client):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(
            model=MODEL, messages=ask(), extra_body={"stop_token_ids": [10**6]}
        )
    assert refused.value.code == "invalid_request"


async def test_predict_answers_in_the_form_that_was_asked_for(door, client):
    fields = {"prompt": "?", "guided_json": json.dumps(SCHEMA), "max_tokens": "120"}
    submitted = await door.http.post("/predict", files={"image": picture()}, data=fields)
    task_id = submitted.json()["task_id"]
    async with asyncio.timeout(60):
        while True:
            result = (await door.http.get("/result", params={"task_id": task_id})).json()
            if result["status"] != "pending":
                break
            await asyncio.sleep(0.05)
    assert set(json.loads(result["response"])) == {"价", "ok"}
