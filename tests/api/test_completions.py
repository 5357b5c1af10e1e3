"""``/v1/completions`` by the unmodified ``openai`` client, and as load tools call it."""

from __future__ import annotations

import json

import openai
import pytest

from forebay.core.request import TextPart
from forebay.queue.ports import TaskError
from tests.api.door import MODEL, eventually, working
from tests.api.openai_rig import talking


async def test_a_text_is_gone_on_with(door):
    async with working(door) as worker, talking(door) as client:
        answer = await client.completions.create(
            model=MODEL, prompt="The price is", max_tokens=9, stop="\n", seed=5, temperature=0.5
        )
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "The price is 12."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 43
    [asked] = worker.seen
    assert asked.raw
    assert [message.parts for message in asked.messages] == [(TextPart("The price is"),)]
    assert (asked.sampling.max_tokens, asked.sampling.stop, asked.sampling.seed) == (9, ("\n",), 5)


async def test_where_nothing_is_said_an_answer_has_sixteen_tokens(door):
    async with working(door) as worker, talking(door) as client:
        await client.completions.create(model=MODEL, prompt="a")
    assert worker.seen[0].sampling.max_tokens == 16


async def test_several_prompts_have_their_answers_in_order(door):
    prompts = ["one", "two", "three"]

    def reply(request):
        return (f"after {request.messages[0].parts[0].text}",)

    async with working(door, reply), talking(door) as client:
        answer = await client.completions.create(model=MODEL, prompt=prompts)
    assert [choice.text for choice in answer.choices] == [f"after {one}" for one in prompts]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.prompt_tokens == 3 * 40


async def test_one_prompts_failure_leaves_nothing_running(door):
    def reply(request):
        if request.messages[0].parts[0].text == "bad":
            return TaskError("prompt_too_long", "too long")
        return ("fine",)

    async with working(door, reply), talking(door) as client:
        with pytest.raises(openai.UnprocessableEntityError):
            await client.completions.create(model=MODEL, prompt=["bad", "good", "good too"])
        await eventually(lambda: _none_waits(door))


async def _none_waits(door) -> bool:
    return await door.waiting() == 0


async def test_it_streams_piece_by_piece_with_its_usage_at_the_end(door):
    async with working(door), talking(door) as client:
        stream = await client.completions.create(
            model=MODEL, prompt="a", stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert texts == ["The ", "price ", "is 12.", ""]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 43
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_request_sent_again_under_its_key_is_the_same_tasks(door):
    body = {"model": MODEL, "prompt": ["a", "b"]}
    headers = {"Idempotency-Key": "k"}
    async with working(door) as worker:
        first = await door.http.post("/v1/completions", json=body, headers=headers)
        again = await door.http.post("/v1/completions", json=body, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert len(worker.seen) == 2


async def test_a_load_tool_measures_what_it_needs(door):
    """As ``vllm bench serve`` calls an OpenAI backend: raw lines, the first and the last token."""
    body = {
        "model": MODEL, "prompt": "hi hi hi", "temperature": 0.0, "repetition_penalty": 1.0,
        "max_tokens": 8, "logprobs": None, "stream": True, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    said, usage = "", None
    async with (
        working(door) as worker,
        door.http.stream("POST", "/v1/completions", json=body) as answer,
    ):
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            told = json.loads(line.removeprefix("data: "))
            if told.get("choices"):
                said += told["choices"][0]["text"] or ""
            if told.get("usage"):
                usage = told["usage"]
    assert said == "The price is 12."
    assert usage is not None
    assert usage["completion_tokens"] == 3
    assert worker.seen[0].sampling.ignore_eos
