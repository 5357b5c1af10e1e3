"""Functions and their calls by the unmodified ``openai`` client, from door to engine and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from forebay.access.caller import ANONYMOUS
from forebay.api.answers import final_record
from forebay.api.app import create_app
from forebay.api.calls import chat_call, submit_all
from forebay.core.request import Message, Role, TextPart
from forebay.core.tools import ToolCall, ToolUse
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.engine.upstream.transport import Address
from tests.api.door import MODEL, PROFILE, Door, eventually, listening, say, working
from tests.api.engine_rig import answering
from tests.api.openai_rig import talking
from tests.checkpoints import TINY, write_checkpoint
from tests.engine.fake_upstream import DONE, FakeUpstream, delta, event, stream, usage

UNITS = {"type": "string", "enum": ["c", "°f"]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of <a> city.",
        "parameters": {
            "type": "object",
            "properties": {
                "unit": UNITS,
                "days": {"type": "integer", "minimum": 1, "maximum": 99},
                "hourly": {"type": "boolean"},
                "parts": {"type": "array", "items": UNITS, "maxItems": 2},
            },
            "required": ["unit", "days"],
            "additionalProperties": False,
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS: list[Any] = [WEATHER, NOW]
PARIS = (
    "<tool_call>get_weather\n<arg_key>unit</arg_key>\n<arg_value>c</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
)
ARGUMENTS = {"unit": "c", "days": 3}
USER: list[Any] = [{"role": "user", "content": "Weather?"}]


@asynccontextmanager
async def of_tools(door: Door) -> AsyncIterator[Door]:
    """The same door, before a model whose template has functions."""
    services = replace(door.services, profile=replace(PROFILE, calls=True))
    async with listening(create_app(services)) as url:
        yield replace(door, url=url, services=services)


@pytest.fixture
async def client(door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with of_tools(door) as other, talking(other) as client:
        yield client


async def collected(stream: Any) -> tuple[str, list[dict[str, str]], str | None]:
    """Put a stream together as clients do: text, calls, reason."""
    text, calls, reason = "", [], None
    async for chunk in stream:
        [choice] = chunk.choices
        text += choice.delta.content or ""
        for piece in choice.delta.tool_calls or ():
            if piece.index == len(calls):
                assert piece.type == "function"
                calls.append({"id": piece.id, "name": piece.function.name, "arguments": ""})
            else:
                assert (piece.id, piece.function.name) == (None, None)
            calls[piece.index]["arguments"] += piece.function.arguments
        reason = choice.finish_reason or reason
    return text, calls, reason


async def test_a_call_is_an_answer_and_its_result_the_next_question(door, client):
    async with working(door, say("Let me ", "see.\n<tool", PARIS[5:40], PARIS[40:])) as worker:
        answer = await client.chat.completions.create(model=MODEL, messages=USER, tools=TOOLS)
        message = answer.choices[0].message
        [call] = message.tool_calls
        worker.reply = say("Sunny.")
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        last = await client.chat.completions.create(
            model=MODEL, messages=[*USER, message.model_dump(), result], tools=TOOLS
        )
    assert message.content == "Let me see."
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == ARGUMENTS
    assert last.choices[0].message.content == "Sunny."
    assert last.choices[0].message.tool_calls is None
    assert last.choices[0].finish_reason == "stop"
    first, second = worker.seen
    assert [tool.name for tool in first.tools.tools] == ["get_weather", "now"]
    assert json.loads(first.tools.tools[0].spec) == WEATHER
    assert second.messages[1:] == (
        Message(
            Role.ASSISTANT,
            (TextPart("Let me see."),),
            (ToolCall(call.id, "get_weather", call.function.arguments),),
        ),
        Message(Role.TOOL, (TextPart("sunny"),), call_id=call.id),
    )


async def test_a_streamed_answer_has_the_calls_of_a_whole_one(door, client):
    text = f"See.\n{PARIS}\n<tool_call>now</tool_call>"
    async with working(door, say(*text)):
        whole = await client.chat.completions.create(model=MODEL, messages=USER, tools=TOOLS)
        stream = await client.chat.completions.create(
            model=MODEL, messages=USER, tools=TOOLS, stream=True
        )
        said, calls, reason = await collected(stream)
    message = whole.choices[0].message
    assert said == message.content == "See."
    assert reason == whole.choices[0].finish_reason == "tool_calls"
    names = [(call.function.name, call.function.arguments) for call in message.tool_calls]
    assert [(call["name"], call["arguments"]) for call in calls] == names
    assert [name for name, _ in names] == ["get_weather", "now"]
    assert len({call["id"] for call in calls}) == 2


async def test_without_a_call_an_answer_is_text(door, client):
    async with working(door, say("1 <", " 2")):
        stream = await client.chat.completions.create(
            model=MODEL, messages=USER, tools=TOOLS, stream=True
        )
        assert await collected(stream) == ("1 < 2", [], "stop")


async def test_with_the_choice_none_the_model_is_told_of_no_function(door, client):
    async with working(door, say(PARIS)) as worker:
        answer = await client.chat.completions.create(
            model=MODEL, messages=USER, tools=TOOLS, tool_choice="none"
        )
    assert worker.seen[0].tools is None
    assert answer.choices[0].message.content == PARIS
    assert answer.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("choice", "more", "meant"),
    [
        ("auto", {}, {}),
        ("required", {}, {"required": True}),
        ("auto", {"parallel_tool_calls": False}, {"parallel": False}),
        ({"type": "function", "function": {"name": "now"}}, {}, {"named": "now"}),
    ],
)
async def test_the_choice_goes_to_the_worker(door, client, choice, more, meant):
    async with working(door, say(PARIS, PARIS)) as worker:
        answer = await client.chat.completions.create(
            model=MODEL, messages=USER, tools=TOOLS, tool_choice=choice, **more
        )
    assert worker.seen[0].tools == ToolUse(worker.seen[0].tools.tools, **meant)
    one = "parallel" in meant or "named" in meant
    assert len(answer.choices[0].message.tool_calls) == (1 if one else 2)


async def test_a_calls_id_is_the_same_however_often_it_is_asked_for(door, client):
    async with working(door, say(PARIS)):
        key = {"Idempotency-Key": "k"}
        first, second = [
            await client.chat.completions.create(
                model=MODEL, messages=USER, tools=TOOLS, extra_headers=key
            )
            for _ in range(2)
        ]
    assert first.choices[0].message.tool_calls == second.choices[0].message.tool_calls
    task = first.id.removeprefix("chatcmpl-")
    assert first.choices[0].message.tool_calls[0].id == f"call_{task}_0_0"


async def test_a_line_of_a_batch_may_call_too(door, client):
    body = {"model": MODEL, "messages": USER, "tools": TOOLS, "tool_choice": "required"}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    async with working(door, say(PARIS)):
        call = await chat_call(line["body"], door.services.settings)
        services = replace(door.services, profile=replace(PROFILE, calls=True))
        [taken] = await submit_all(services, call.asks, ANONYMOUS)
        record = await final_record(services, taken.task_id)
    [choice] = call.render([record])["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS


def call_of(name: str = "now", arguments: str = "{}", call_id: str = "c1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def with_parameters(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


DOUBLING = {
    f"A{at}": {"anyOf": [{"$ref": f"#/$defs/A{at + 1}"}, {"$ref": f"#/$defs/A{at + 1}"}]}
    for at in range(60)
}
LARGE = {
    f"D{at}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/D{(at + 1) % 150}"}}}
    for at in range(150)
}


ASKED = {"role": "assistant", "content": None, "tool_calls": [call_of()]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12"}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [NOW] * 129}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [with_parameters(nested(65))]}, "tools.0.function.parameters"),
        ({"tools": [with_parameters({"title": "x" * 2**18})]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "tools"),
        ({"tools": TOOLS, "tool_choice": "required", "min_tokens": 3}, "min_tokens"),
        ({"tools": TOOLS, "tool_choice": "required", "ignore_eos": True}, "ignore_eos"),
        ({"messages": [*USER, RESULT]}, "messages.1.tool_call_id"),
        ({"messages": [*USER, ASKED, {**RESULT, "tool_call_id": "c2"}]}, "messages.2.tool_call_id"),
        ({"messages": [*USER, {"role": "tool", "content": "x"}]}, "messages.1.tool_call_id"),
        ({"messages": [{**USER[0], "tool_calls": [call_of()]}]}, "messages.0.tool_calls"),
        ({"messages": [{**USER[0], "tool_call_id": "c1"}]}, "messages.0.tool_call_id"),
        ({"messages": [{**USER[0], "name": "me"}]}, "messages.0.name"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages.0.content"),
        (
            {"messages": [{**ASKED, "tool_calls": [call_of(arguments="[1]")]}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            {"messages": [{**ASKED, "tool_calls": [call_of(arguments='{"a":' * 900)]}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            {
                "messages": [
                    {**ASKED, "tool_calls": [call_of(arguments=json.dumps(nested(65)))]},
                ]
            },
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            {"messages": [{**ASKED, "tool_calls": [call_of(arguments='{"a": ')]}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
    ],
)
async def test_what_cannot_be_is_a_400_that_names_its_field(door, client, more, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.post(
            "/chat/completions", body={"model": MODEL, "messages": USER, **more}, cast_to=object
        )
    assert str(refused.value.param).startswith(param)
    assert await door.waiting() == 0


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}}, "required": ["a"]},
        {"properties": {"a</arg_key>": {}}},
        {"properties": {"a": {"enum": ["</arg_value>"]}}},
        {"properties": []},
        {"properties": {}, "required": 3},
        {"properties": {f"p{at}": {} for at in range(200)}},
        {"properties": {"a": {"type": "array", "items": {"not": {}}}}, "required": ["a"]},
        {"properties": {"a": {"$ref": "#/$defs/nowhere"}}},
        {"properties": {"a": {"anyOf": [{"$ref": "#/$defs/A0"}]}}, "$defs": DOUBLING},
        {
            "properties": {f"p{at}": {"$ref": f"#/$defs/D{at}"} for at in range(120)},
            "$defs": LARGE,
        },
    ],
)
async def test_a_function_that_cannot_be_called_by_its_schema_is_refused(door, client, parameters):
    tools: list[Any] = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(
            model=MODEL, messages=USER, tools=tools, tool_choice="required"
        )
    assert (refused.value.param, refused.value.code) == ("tools", "invalid_constraint")


@pytest.mark.parametrize("more", [{"tools": TOOLS}, {"messages": [*USER, ASKED, RESULT]}])
async def test_a_model_whose_template_has_no_functions_says_so(door, more):
    async with talking(door) as client:
        with pytest.raises(openai.BadRequestError, match="template") as refused:
            await client.chat.completions.create(**{"model": MODEL, "messages": USER, **more})
    assert refused.value.param == next(iter(more))


async def test_functions_and_calls_weigh_as_the_text_that_they_are(door, client):
    tool: list[Any] = [{"type": "function", "function": {"name": "f", "description": "x" * 3000}}]
    call = call_of(arguments=json.dumps({"a": "y" * 2000}))
    messages = [{**ASKED, "tool_calls": [call]}, RESULT]
    asking = asyncio.create_task(
        client.chat.completions.create(model=MODEL, messages=messages, tools=tool)
    )
    await eventually(door.waiting)
    assert (await door.queue.depth()).waiting_tokens > 5000
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


# A real engine, of a checkpoint whose template has functions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tools"), replace(TINY, tools=True), seed=3)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.from_folder(folder, limits=EngineLimits(max_running=4), device="cpu")


@pytest.fixture
async def answered(door: Door, engine: Engine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with of_tools(door) as other, answering(other, engine), talking(other) as client:
        yield client


def check(name: str, arguments: str) -> None:
    given = json.loads(arguments)
    if name == "now":
        assert given == {}
        return
    assert name == "get_weather"
    assert list(given) == [key for key in ("unit", "days", "hourly", "parts") if key in given]
    assert {"unit", "days"} <= given.keys()
    assert given["unit"] in UNITS["enum"]
    assert 1 <= given["days"] <= 99
    assert isinstance(given.get("hourly", True), bool)
    assert set(given.get("parts", ())) <= set(UNITS["enum"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_knows_nothing_calls_by_the_schema_where_it_must(answered, stream):
    for seed in range(4):
        asked = answered.chat.completions.create(
            model=MODEL, messages=USER, tools=TOOLS, tool_choice="required", seed=seed,
            temperature=1.5, max_tokens=400, parallel_tool_calls=False, stream=stream,
        )  # fmt: skip
        if stream:
            text, calls, reason = await collected(await asked)
            found = [(call["name"], call["arguments"]) for call in calls]
        else:
            [choice] = (await asked).choices
            text, reason = choice.message.content or "", choice.finish_reason
            found = [
                (one.function.name, one.function.arguments) for one in choice.message.tool_calls
            ]
        assert (text, reason, len(found)) == ("", "tool_calls", 1)
        check(*found[0])


async def test_the_named_function_is_called_once(answered):
    named = {"type": "function", "function": {"name": "get_weather"}}
    answer = await answered.chat.completions.create(
        model=MODEL, messages=USER, tools=TOOLS, tool_choice=named, n=2, temperature=1.0,
        max_tokens=400,
    )  # fmt: skip
    for choice in answer.choices:
        [call] = choice.message.tool_calls
        assert call.function.name == "get_weather"
        check("get_weather", call.function.arguments)


async def test_a_conversation_with_calls_and_results_is_answered(answered):
    messages = [*USER, ASKED, RESULT, {"role": "user", "content": "And?"}]
    answer = await answered.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, max_tokens=4
    )
    bare = await answered.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    assert answer.usage.prompt_tokens > bare.usage.prompt_tokens > 0


# A server elsewhere, which has read the calls itself


def piece(index: int, **function: str) -> bytes:
    call = {"index": index, "id": "theirs", "type": "function", "function": function}
    return event(choices=[{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}])


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_server_elsewhere_is_offered_the_functions_and_its_calls_come_back(
    door, client, streamed
):
    arguments = '{"unit":  "<c>", "days": 3}'
    parts = [delta("See. "), piece(0, name="get_weather", arguments=arguments[:9])]
    parts += [piece(0, arguments=arguments[9:]), piece(1, name="now", arguments="")]
    chat = stream(*parts, delta("", "tool_calls"), usage(7, 9), DONE)
    server = FakeUpstream(chat=chat)
    async with server.listening():
        engine = UpstreamEngine(Address(server.url, idle_s=5), unpublished=8, answer_s=60)
        async with answering(door, engine):
            answer = await client.chat.completions.create(
                model=MODEL, messages=[*USER, ASKED, RESULT], tools=TOOLS,
                tool_choice="required", stream=streamed,
            )  # fmt: skip
            if streamed:
                text, calls, reason = await collected(answer)
                found = [(call["name"], call["arguments"]) for call in calls]
            else:
                [choice] = answer.choices
                text, reason = choice.message.content, choice.finish_reason
                found = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls]
    assert (text, reason) == ("See.", "tool_calls")
    assert found == [("get_weather", arguments), ("now", "{}")]
    [sent] = server.asked
    assert sent.asked["tools"] == TOOLS
    assert sent.asked["tool_choice"] == "required"
    assert sent.asked["messages"][1]["tool_calls"] == ASKED["tool_calls"]
