"""The unmodified ``openai`` client works against the door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from forebay.core.request import ImagePart, Role, TextPart
from forebay.queue.ports import TaskError
from tests.admission.pictures import picture
from tests.api.door import ALIASES, MODEL, Door, data_url, say, working


@pytest.fixture
async def client(door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{door.url}/v1", api_key="any", http_client=http, max_retries=0, timeout=30
    ) as client:
        yield client


def ask(text: str, *images: bytes) -> list:
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


async def test_a_picture_and_a_question_get_an_answer(door, client):
    async with working(door) as worker:
        answer = await client.chat.completions.create(
            model=MODEL, messages=ask("What is the price?", picture(size=(300, 200)))
        )
    assert answer.choices[0].message.content == "The price is 12."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (40, 3)
    assert answer.model == MODEL
    [message] = worker.seen[0].messages
    image, text = message.parts
    assert isinstance(image, ImagePart)
    assert (image.width, image.height) == (300, 200)
    assert text == TextPart("What is the price?")
    assert (await door.services.blobs.get(image.sha256)).startswith(b"\xff\xd8")


async def test_text_alone_and_a_whole_conversation_keep_their_order(door, client):
    async with working(door) as worker:
        await client.chat.completions.create(
            model=ALIASES[0],
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "你好"},
                {"role": "assistant", "content": "您好", "refusal": None},
                {"role": "user", "content": [{"type": "text", "text": "再见"}]},
            ],
        )
    messages = worker.seen[0].messages
    assert [message.role for message in messages] == [
        Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER,
    ]  # fmt: skip
    assert [message.parts for message in messages] == [
        (TextPart(text),) for text in ("Be brief.", "你好", "您好", "再见")
    ]
    assert worker.seen[0].model == MODEL


async def test_several_pictures_keep_their_order(door, client):
    pictures = [picture("PNG", size=(40 + side, 50)) for side in range(4)]
    async with working(door) as worker:
        await client.chat.completions.create(model=MODEL, messages=ask("Compare.", *pictures))
    assert [image.width for image in worker.seen[0].images] == [40, 41, 42, 43]


async def test_low_detail_stores_a_smaller_picture(door, client):
    url = {"url": data_url(picture(size=(2000, 1000))), "detail": "low"}
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
    async with working(door) as worker:
        await client.chat.completions.create(model=MODEL, messages=messages)
    assert worker.seen[0].images[0].width == 512


async def test_an_answer_streams_piece_by_piece(door, client):
    async with working(door):
        stream = await client.chat.completions.create(
            model=MODEL, messages=ask("你好"), stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks[1:-1]] == ["The ", "price ", "is 12."]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stream_ends_with_its_usage_when_asked(door, client):
    async with working(door):
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=ask("hello", picture()),
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 43
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_sampling_parameters_reach_the_engine(door, client):
    async with working(door) as worker:
        await client.chat.completions.create(
            model=MODEL, messages=ask("hi"), max_completion_tokens=7, temperature=0.5,
            top_p=0.9, seed=3, stop=["\n", "。"], user="me", store=False, n=1,
            response_format={"type": "text"}, presence_penalty=0, metadata={"a": "b"},
        )  # fmt: skip
    sampling = worker.seen[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (7, 0.5, 0.9)
    assert (sampling.seed, sampling.stop) == (3, ("\n", "。"))


async def test_a_seed_is_drawn_at_the_door_so_that_every_attempt_samples_alike(door, client):
    async with working(door) as worker:
        for _ in range(2):
            await client.chat.completions.create(model=MODEL, messages=ask("hi"), temperature=0.5)
    first, second = (request.sampling.seed for request in worker.seen)
    assert None not in (first, second)
    assert first != second


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        ("tool_choice", "required"),
        ("logit_bias", {"5": 1}),
        ("reasoning_effort", "low"),
        ("modalities", ["text", "audio"]),
    ],
)
async def test_an_unsupported_field_is_refused_by_name(door, client, field, value):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=MODEL, messages=ask("hi"), **{field: value})
    assert refused.value.param == field
    assert refused.value.code == "invalid_request"
    assert field in refused.value.message
    assert await door.waiting() == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 3),
        ("top_p", 0),
        ("max_tokens", 0),
        ("max_tokens", 10**6),
        ("stop", ["a"] * 5),
        ("stop", [""]),
        ("stop", "x" * 501),
        ("stop", [1] * 5000),
        ("seed", "x"),
        ("seed", 2**63),
        ("n", 0),
        ("n", 9),
        ("top_logprobs", 2),
        ("logprobs", 3),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -3),
        ("repetition_penalty", 0),
        ("top_k", -2),
        ("min_p", 1.5),
        ("min_tokens", 300),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", [1] * 65),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("guided_json", "{"),
        ("guided_json", "[]"),
        ("guided_choice", []),
        ("guided_grammar", "root ::= a"),
        ("structured_outputs", {"grammar": "root ::= a"}),
        ("messages", []),
        ("messages", [{"role": "tool", "content": "x", "tool_call_id": "1"}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": [{"type": "input_audio"}]}]),
        ("stream_options", {"surprise": True}),
    ],
)
async def test_a_value_out_of_range_is_refused_by_name(door, client, field, value):
    body = {"model": MODEL, "messages": ask("hi"), field: value}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.post("/chat/completions", body=body, cast_to=object)
    assert str(refused.value.param).startswith(field)
    assert await door.waiting() == 0


async def test_an_unknown_model_is_not_found(door, client):
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=ask("hi"))
    assert refused.value.code == "model_not_found"
    assert await door.waiting() == 0


async def test_every_name_of_the_model_is_listed(client):
    assert [model.id async for model in client.models.list()] == [MODEL, *ALIASES]
    assert (await client.models.retrieve(ALIASES[1])).id == ALIASES[1]
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")


async def test_the_engines_refusal_is_told_with_its_own_status(door, client):
    failure = TaskError("prompt_too_long", "9000 tokens exceed the context of 8192")
    async with working(door, lambda _: failure):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await client.chat.completions.create(model=MODEL, messages=ask("hi"))
        assert refused.value.code == "prompt_too_long"
        stream = await client.chat.completions.create(model=MODEL, messages=ask("hi"), stream=True)
        with pytest.raises(openai.APIError, match="9000 tokens"):
            [chunk async for chunk in stream]


async def test_the_synchronous_client_streams_too(door):
    def talk() -> str:
        http = httpx.Client(trust_env=False)
        with openai.OpenAI(base_url=f"{door.url}/v1", api_key="any", http_client=http) as client:
            stream = client.chat.completions.create(model=MODEL, messages=ask("hi"), stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    async with working(door, say("你", "好")):
        assert await asyncio.to_thread(talk) == "你好"
