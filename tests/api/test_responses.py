"""``/v1/responses`` by the unmodified ``openai`` client: at once, streamed, and asked for later."""

from __future__ import annotations

import json

import openai
import pytest

from forebay.core.request import ImagePart, Role, TextPart
from forebay.queue.ports import Outcome, StreamWrite, TaskError
from tests.admission.pictures import picture
from tests.api.door import MODEL, USAGE, data_url, eventually, working
from tests.api.openai_rig import talking

SAID = "The price is 12."


async def test_an_answer_comes_at_once_with_what_was_asked(door):
    async with working(door) as worker, talking(door) as client:
        response = await client.responses.create(
            model=MODEL,
            instructions="Be brief.",
            input=[
                {"role": "user", "content": "你好"},
                {"role": "assistant", "content": [{"type": "output_text", "text": "您好"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "多少钱?"},
                        {"type": "input_image", "image_url": data_url(picture()), "detail": "low"},
                    ],
                },
            ],
            max_output_tokens=12,
            metadata={"a": "b"},
        )
    assert response.output_text == SAID
    assert response.status == "completed"
    assert response.instructions == "Be brief."
    assert response.max_output_tokens == 12
    assert response.metadata == {"a": "b"}
    assert (response.usage.input_tokens, response.usage.output_tokens) == (40, 3)
    [asked] = worker.seen
    roles = [message.role for message in asked.messages]
    assert roles == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    text, image = asked.messages[-1].parts
    assert text == TextPart("多少钱?")
    assert isinstance(image, ImagePart)
    assert asked.sampling.max_tokens == 12


async def test_the_output_of_one_response_is_input_of_the_next(door):
    async with working(door) as worker, talking(door) as client:
        first = await client.responses.create(model=MODEL, input="one")
        turns = [{"role": "user", "content": "one"}]
        turns += [item.model_dump(exclude_none=True) for item in first.output]
        await client.responses.create(
            model=MODEL, input=[*turns, {"role": "user", "content": "two"}]
        )
    assert [message.parts for message in worker.seen[-1].messages] == [
        (TextPart("one"),), (TextPart(SAID),), (TextPart("two"),),
    ]  # fmt: skip


async def test_a_stream_has_the_contracts_events_in_order(door):
    async with working(door), talking(door) as client:
        stream = await client.responses.create(model=MODEL, input="hi", stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", "response.output_text.delta", "response.output_text.delta",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == SAID
    assert events[-1].response.output_text == SAID
    assert events[-1].response.usage.total_tokens == 43


async def test_the_clients_own_accumulation_of_a_stream_is_the_answer(door):
    async with (
        working(door),
        talking(door) as client,
        client.responses.stream(model=MODEL, input="hi") as stream,
    ):
        response = await stream.get_final_response()
    assert response.output_text == SAID


async def test_a_background_response_is_asked_for_until_it_is_done(door):
    async with talking(door) as client:
        response = await client.responses.create(model=MODEL, input="hi", background=True)
        assert response.status == "queued"
        assert response.background
        async with working(door):
            await eventually(lambda: _is_completed(client, response.id))
        done = await client.responses.retrieve(response.id)
    assert done.output_text == SAID
    assert done.status == "completed"


async def _is_completed(client: openai.AsyncOpenAI, response_id: str) -> bool:
    return (await client.responses.retrieve(response_id)).status == "completed"


async def test_a_stream_is_gone_on_with_after_any_of_its_events(door):
    async with working(door), talking(door) as client:
        stream = await client.responses.create(
            model=MODEL, input="hi", background=True, stream=True
        )
        events = [event async for event in stream]
        response_id = events[0].response.id
        assert events[1].type == "response.queued"
        for at, last in enumerate(events):
            again = await client.responses.retrieve(
                response_id, stream=True, starting_after=last.sequence_number
            )
            assert [event async for event in again] == events[at + 1 :]


async def test_a_second_delivery_in_other_pieces_goes_on_where_the_client_was(door):
    """The stream's first attempt is gone by then: places are of the text, not of its pieces."""
    async with talking(door) as client:
        response = await client.responses.create(model=MODEL, input="hi", background=True)
        [first] = await door.queue.claim("one", 1, 10**9)
        await door.streams.append([StreamWrite(first.task_id, first.fence, "The pri", 1)])
        stream = await client.responses.retrieve(response.id, stream=True)
        heard = []
        async for event in stream:
            heard.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        await door.queue.redeliver([(first.task_id, first.fence)], "it broke")
        [second] = await door.queue.claim("two", 1, 10**9)
        for text in ("The", " price", " is 12."):
            await door.streams.append([StreamWrite(second.task_id, second.fence, text, 1)])
        outcome = Outcome(second.task_id, second.fence, text=SAID, usage=USAGE)
        await door.queue.finish([outcome])
        again = await client.responses.retrieve(
            response.id, stream=True, starting_after=heard[-1].sequence_number
        )
        rest = [event async for event in again]
    deltas = [e.delta for e in (*heard, *rest) if e.type == "response.output_text.delta"]
    assert "".join(deltas) == SAID
    assert deltas[:2] == ["The pri", "ce"]
    assert rest[-1].type == "response.completed"


async def test_a_background_response_is_cancelled(door):
    async with talking(door) as client:
        response = await client.responses.create(model=MODEL, input="hi", background=True)
        assert (await client.responses.cancel(response.id)).status == "cancelled"
        again = await client.responses.cancel(response.id)
        assert again.status == "cancelled", "to cancel twice is the same"
        stream = await client.responses.retrieve(response.id, stream=True)
        events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "cancelled"
    assert await door.waiting() == 0


async def test_one_in_the_foreground_cannot_be_cancelled(door):
    async with working(door), talking(door) as client:
        response = await client.responses.create(model=MODEL, input="hi")
        with pytest.raises(openai.BadRequestError):
            await client.responses.cancel(response.id)


async def test_a_failure_is_the_responses_own(door):
    failure = TaskError("prompt_too_long", "9000 tokens exceed the context of 8192")
    async with working(door, lambda _: failure), talking(door) as client:
        with pytest.raises(openai.UnprocessableEntityError):
            await client.responses.create(model=MODEL, input="hi")
        stream = await client.responses.create(model=MODEL, input="hi", stream=True)
        events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "prompt_too_long"


async def test_a_deleted_or_unstored_response_is_not_there(door):
    async with working(door), talking(door) as client:
        kept = await client.responses.create(model=MODEL, input="hi")
        assert (await client.responses.retrieve(kept.id)).output_text == SAID
        await client.responses.delete(kept.id)
        unstored = await client.responses.create(model=MODEL, input="hi", store=False)
        for response_id in (kept.id, unstored.id, "resp_nobody", "x"):
            with pytest.raises(openai.NotFoundError) as refused:
                await client.responses.retrieve(response_id)
            assert refused.value.code == "response_not_found"


async def test_a_form_and_logprobs_are_asked_for_by_their_names(door):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    async with working(door) as worker, talking(door) as client:
        response = await client.responses.create(
            model=MODEL,
            input="hi",
            text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
            include=["message.output_text.logprobs"],
            top_logprobs=2,
            temperature=0.7,
            top_p=0.9,
        )
    sampling = worker.seen[0].sampling
    assert json.loads(sampling.constraint.text) == schema
    assert (sampling.logprobs, sampling.temperature, sampling.top_p) == (2, 0.7, 0.9)
    assert response.text.format.schema_ == schema


@pytest.mark.parametrize(
    "query", ["starting_after=3", "stream=true&include_obfuscation=true", "surprise=1"]
)
async def test_a_parameter_that_cannot_be_honoured_is_refused(door, query):
    async with working(door), talking(door) as client:
        response = await client.responses.create(model=MODEL, input="hi")
        refused = await door.http.get(f"/v1/responses/{response.id}?{query}")
    assert refused.status_code == 400
