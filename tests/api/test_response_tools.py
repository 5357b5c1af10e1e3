"""Functions in ``/v1/responses`` by the unmodified ``openai`` client: offered, called, answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import openai
import pytest

from forebay.api.calls import response_call
from forebay.api.responses.output import Output, whole_output
from forebay.core.request import Role, TaskId, TextPart
from forebay.core.tools import Tool, ToolCall, ToolUse
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.queue.ports import Outcome, StreamWrite
from tests.api.door import MODEL, USAGE, say, working
from tests.api.engine_rig import answering
from tests.api.openai_rig import talking
from tests.api.test_tools import ARGUMENTS, NOW, PARIS, WEATHER, of_tools
from tests.checkpoints import TINY, write_checkpoint

TOOLS: list[Any] = [{"type": "function", **one["function"]} for one in (WEATHER, NOW)]
CHAT_TOOLS = tuple(Tool.of(one) for one in (WEATHER, NOW))
SAID = "Let me see.\n" + PARIS + "\n<tool_call>now\n</tool_call>"


@pytest.fixture
async def client(door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with of_tools(door) as other, talking(other) as client:
        yield client


async def test_a_call_is_an_item_and_its_output_the_next_question(door, client):
    asked: list[Any] = [{"role": "user", "content": "Weather?"}]
    async with working(door, say("Let me ", "see.\n<tool", PARIS[5:40], PARIS[40:])) as worker:
        first = await client.responses.create(model=MODEL, input=asked, tools=TOOLS)
        message, call = first.output
        asked += first.output
        asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        worker.reply = say("Sunny.")
        last = await client.responses.create(model=MODEL, input=asked, tools=TOOLS)
    assert first.output_text == "Let me see."
    assert (first.status, message.status, call.status) == ("completed",) * 3
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "get_weather",
        ARGUMENTS,
    )
    assert [tool.name for tool in first.tools] == ["get_weather", "now"]
    assert (first.tool_choice, first.parallel_tool_calls) == ("auto", True)
    assert last.output_text == "Sunny."
    offered, told = worker.seen
    assert offered.tools == ToolUse(CHAT_TOOLS), "as chat has them"
    assistant, result = told.messages[1:]
    assert assistant.parts == (TextPart("Let me see."),)
    assert assistant.calls == (ToolCall(call.call_id, "get_weather", call.arguments),)
    assert (result.role, result.call_id, result.parts) == (
        Role.TOOL,
        call.call_id,
        (TextPart("sunny"),),
    )


async def test_calls_without_a_word_are_the_assistants_turn(door, client):
    calls = [
        {"type": "function_call", "call_id": f"c{at}", "name": "now", "arguments": ""}
        for at in range(2)
    ]
    results = [
        {
            "type": "function_call_output",
            "call_id": f"c{at}",
            "output": [{"type": "input_text", "text": "1"}, {"type": "input_text", "text": "2"}],
        }
        for at in range(2)
    ]
    async with working(door) as worker:
        asked: Any = [{"role": "user", "content": "When?"}, *calls, *results]
        await client.responses.create(model=MODEL, input=asked, tools=TOOLS)
    _, assistant, *told = worker.seen[0].messages
    assert [call.call_id for call in assistant.calls] == ["c0", "c1"]
    assert [(one.role, one.parts[0].text) for one in told] == [(Role.TOOL, "12")] * 2


async def test_a_stream_has_the_contracts_events_in_order(door, client):
    async with working(door, say(*SAID.partition("days"))):
        stream = await client.responses.create(model=MODEL, input="?", tools=TOOLS, stream=True)
        events = [event async for event in stream]
    kinds = [event.type.removeprefix("response.") for event in events]
    call = ["function_call_arguments.done", "output_item.done"]
    assert [kind for kind in kinds if not kind.endswith(".delta")] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.done",
        "content_part.done", "output_item.done", "output_item.added", *call, "output_item.added",
        *call, "completed",
    ]  # fmt: skip
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    arguments = [e for e in events if e.type == "response.function_call_arguments.delta"]
    first = "".join(e.delta for e in arguments if e.output_index == 1)
    assert json.loads(first) == ARGUMENTS
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert [(e.name, e.arguments) for e in done] == [("get_weather", first), ("now", "{}")]
    items = [e.item for e in events if e.type == "response.output_item.done"]
    assert items == events[-1].response.output


async def test_the_clients_own_accumulation_of_a_stream_is_the_answer(door, client):
    async with (
        working(door, say(*SAID)),
        client.responses.stream(model=MODEL, input="?", tools=TOOLS) as stream,
    ):
        response = await stream.get_final_response()
    assert response.output_text == "Let me see."
    assert [item.type for item in response.output] == ["message", *["function_call"] * 2]
    assert json.loads(response.output[1].arguments) == ARGUMENTS


@pytest.mark.parametrize("said", [SAID, PARIS, "plain", "", " <tool_", SAID[:70], PARIS + "x y"])
@pytest.mark.parametrize("use", [ToolUse(CHAT_TOOLS), None], ids=["tools", "plain"])
def test_wherever_a_text_is_cut_places_and_the_whole_are_the_same(said, use):
    rng = Random(7)

    def told(pieces: list[str]) -> tuple[dict[int, str], list[Any]]:
        """Return each letter of every delta by its place, and the items at the end."""
        output, number, found = Output(TaskId("t"), use), 0, {}
        steps = [step for piece in pieces for step in output.feed(piece)]
        for step in (*steps, *output.finish("completed")):
            for at, letter in enumerate(step.delta or ""):
                found[number + at + 1] = letter
            number += step.length
            found[number] = found.get(number, step.name)
        return found, output.items

    whole = told([said])
    assert whole[1] == whole_output(TaskId("t"), use, said, (), "completed")
    for _ in range(40):
        cuts = sorted(rng.choices(range(len(said) + 1), k=6))
        pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
        assert told(pieces) == whole


async def test_a_stream_is_gone_on_with_after_any_of_its_events(door, client):
    async with working(door, say(SAID[:60], SAID[60:])):
        stream = await client.responses.create(
            model=MODEL, input="?", tools=TOOLS, background=True, stream=True
        )
        events = [event async for event in stream]
        response_id = events[0].response.id
        for at, last in enumerate(events):
            again = await client.responses.retrieve(
                response_id, stream=True, starting_after=last.sequence_number
            )
            assert [event async for event in again] == events[at + 1 :]
        kept = await client.responses.retrieve(response_id)
    assert kept.output == events[-1].response.output


async def test_a_call_that_is_cut_off_is_not_whole(door, client):
    text = PARIS[:60]
    async with of_tools(door) as other:
        made = await client.responses.create(
            model=MODEL, input="?", tools=TOOLS, background=True, max_output_tokens=5
        )
        [lease] = await other.queue.claim("w", 1, 10**9)
        await other.streams.append([StreamWrite(lease.task_id, lease.fence, text, 5)])
        cut = Outcome(lease.task_id, lease.fence, text=text, finish_reason="length", usage=USAGE)
        await other.queue.finish([cut])
        stream = await client.responses.retrieve(made.id, stream=True)
        events = [event async for event in stream]
    response = events[-1].response
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    [call] = response.output
    assert call.status == "incomplete"
    with pytest.raises(ValueError, match=r".+"):
        json.loads(call.arguments)
    assert "response.function_call_arguments.done" not in {event.type for event in events}


@pytest.mark.parametrize(
    ("choice", "more", "meant"),
    [
        ("auto", {}, {}),
        ("required", {}, {"required": True}),
        ({"type": "function", "name": "now"}, {}, {"named": "now"}),
        ("auto", {"parallel_tool_calls": False}, {"parallel": False}),
    ],
)
async def test_the_choice_goes_to_the_worker_and_is_told_again(door, client, choice, more, meant):
    async with working(door, say(PARIS, PARIS)) as worker:
        answer = await client.responses.create(
            model=MODEL, input="?", tools=TOOLS, tool_choice=choice, **more
        )
    assert worker.seen[0].tools == ToolUse(CHAT_TOOLS, **meant)
    told = answer.tool_choice
    assert (told if isinstance(told, str) else told.model_dump()) == choice
    assert answer.parallel_tool_calls is ("parallel" not in meant)
    one = "parallel" in meant or "named" in meant
    assert len(answer.output) == (1 if one else 2)


async def test_with_the_choice_none_what_is_written_is_text_of_any_form(door, client):
    form = {"format": {"type": "json_object"}}
    async with working(door, say(PARIS)) as worker:
        answer = await client.responses.create(
            model=MODEL, input="?", tools=TOOLS, tool_choice="none", text=form
        )
    assert worker.seen[0].tools is None
    assert answer.output_text == PARIS
    assert answer.tool_choice == "none"
    assert len(answer.tools) == 2


def call_item(**changes: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}", **changes}


RESULT = {"type": "function_call_output", "call_id": "c", "output": "x"}
SCHEMA = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
TWICE = [TOOLS[0], TOOLS[0]]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"text": {"format": SCHEMA}}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "tools"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools.0.type"),
        ({"tools": [WEATHER]}, "tools.0.name"),
        ({"tools": TWICE}, "tools"),
        ({"tools": [{**TOOLS[1], "description": "x" * 70_000}]}, "tools"),
        ({"tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"max_tool_calls": 2}, "max_tool_calls"),
        ({"input": [RESULT]}, "input.0.call_id"),
        ({"input": [RESULT, call_item()]}, "input.0.call_id"),
        ({"input": [call_item(arguments="[1]")]}, "input.0.arguments"),
        ({"input": [call_item(name="a b")]}, "input.0.name"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ({"input": [{"role": "user", "content": 7}]}, "input.0.content"),
    ],
)
async def test_what_cannot_be_is_a_400_that_names_its_field(client, more, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(**{"model": MODEL, "input": "?", "tools": TOOLS, **more})
    assert refused.value.param == param


async def test_a_model_whose_template_has_no_functions_says_so(door):
    async with talking(door) as client:
        with pytest.raises(openai.BadRequestError, match="template") as refused:
            await client.responses.create(model=MODEL, input="?", tools=TOOLS)
    assert refused.value.param == "tools"


async def test_a_line_of_a_batch_may_call_too(door):
    body = {"model": MODEL, "input": "?", "tools": TOOLS}
    async with of_tools(door) as other, working(other, say(PARIS)):
        call = await response_call(body, other.services.settings)
        assert call.asks[0].tools == ToolUse(CHAT_TOOLS)
        made = await other.http.post(f"{other.url}/v1/responses", json=body)
        record = await other.queue.get(TaskId(made.headers["X-Forebay-Task-Id"]))
    [item] = call.render([record])["output"]
    assert item == made.json()["output"][0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tools"), replace(TINY, tools=True), seed=3)


async def test_a_real_engine_calls_what_it_must(door, checkpoint):
    engine = Engine.from_folder(checkpoint, limits=EngineLimits(max_running=4), device="cpu")
    named = {"type": "function", "name": "get_weather"}
    async with of_tools(door) as other, answering(other, engine), talking(other) as client:
        answer = await client.responses.create(
            model=MODEL, input="?", tools=TOOLS, tool_choice=named, max_output_tokens=400
        )
    [call] = answer.output
    assert (call.name, call.status) == ("get_weather", "completed")
    assert {"unit", "days"} <= json.loads(call.arguments).keys()
