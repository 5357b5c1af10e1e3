"""The unmodified ``openai`` client against the whole stack: its own door, queue, worker, engine."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseCompletedEvent, ResponseTextDeltaEvent
from PIL import Image

from tests.integration.stack import ServeProcess, serving

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def stack(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with serving(model, tmp_path_factory.mktemp("stack"), "--set", "answer_cache_s=0") as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: ServeProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="any", max_retries=8) as client:
        yield client


@pytest.fixture(scope="module")
def name(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def question() -> list[Any]:
    content = io.BytesIO()
    Image.new("RGB", (84, 56), (200, 90, 40)).save(content, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    image = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [image, {"type": "text", "text": "多少钱?"}]}]


def test_a_streamed_chat_is_the_whole_one_with_its_usage(client: openai.OpenAI, name: str) -> None:
    wishes: dict[str, Any] = {
        "model": name, "messages": question(), "n": 2, "seed": 7, "temperature": 0.9,
        "max_tokens": 12, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    whole = client.chat.completions.create(**wishes)
    said, tokens, usage = ["", ""], [0, 0], None
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(**wishes, stream=True, stream_options=options):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            tokens[choice.index] += len(choice.logprobs.content) if choice.logprobs else 0
        usage = chunk.usage or usage
    assert said == [choice.message.content for choice in whole.choices]
    assert tokens == [12, 12]
    assert usage == whole.usage


def test_an_answer_has_the_form_that_was_asked_for(client: openai.OpenAI, name: str) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    answer = client.chat.completions.create(
        model=name, messages=question(), response_format=form, max_tokens=40
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"ok"}


def test_a_streamed_completion_is_the_whole_one(client: openai.OpenAI, name: str) -> None:
    wishes: dict[str, Any] = {"model": name, "max_tokens": 10, "seed": 3, "temperature": 0.7}
    whole = client.completions.create(prompt=["The price", "is"], **wishes)
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 20
    stream = client.completions.create(prompt="The price", stream=True, logprobs=1, **wishes)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert sum(len(one.tokens or []) for one in told) == 10


def test_a_background_response_outlives_the_api_and_its_stream_is_gone_on_with(
    stack: ServeProcess, client: openai.OpenAI, name: str
) -> None:
    stream = client.responses.create(
        model=name, input="多少钱?", max_output_tokens=1500, background=True, stream=True
    )
    heard = []
    for event in stream:
        heard.append(event)
        if isinstance(event, ResponseTextDeltaEvent):
            break
    stream.close()
    response_id = heard[0].response.id  # type: ignore[union-attr]  # the first says it is made
    stack.kill_child("api")
    stack.until(lambda: stack.client.get("/healthz").is_success, "another API")
    last = heard[-1].sequence_number
    heard += client.responses.retrieve(response_id, stream=True, starting_after=last)
    numbers = [event.sequence_number for event in heard]
    assert numbers == sorted(set(numbers))
    text = "".join(event.delta for event in heard if isinstance(event, ResponseTextDeltaEvent))
    end = heard[-1]
    whole = client.responses.retrieve(response_id)
    assert text == whole.output_text
    assert whole.status == "incomplete", "the model never ends by itself"
    assert not isinstance(end, ResponseCompletedEvent)
    assert end.type == "response.incomplete"
    assert end.response.output_text == text
