"""What the door takes of sampling, and what it says of the rest, before anything is queued."""

from __future__ import annotations

import asyncio
import json

import pytest

from forebay.core.constraint import Constraint
from forebay.core.request import SamplingParams
from forebay.queue.ports import Outcome
from tests.admission.pictures import picture
from tests.api.door import MODEL, Door, eventually, working

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "null"}}}


def body(**more) -> dict:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **more}


async def sampled(door: Door, **more) -> SamplingParams:
    async with working(door) as worker:
        answer = await door.http.post(CHAT, json=body(**more))
    assert answer.status_code == 200, answer.text
    return worker.seen[0].sampling


async def refused(door: Door, **more) -> dict:
    answer = await door.http.post(CHAT, json=body(**more))
    assert answer.status_code == 400
    assert await door.waiting() == 0
    return answer.json()["error"]


async def test_every_parameter_reaches_the_engine(door):
    given = {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1,
        "repetition_penalty": 1.2, "presence_penalty": -1.0, "frequency_penalty": 2.0, "seed": 5,
        "min_tokens": 2, "ignore_eos": True, "n": 3,
    }  # fmt: skip
    lists = {"stop": ["a", "b"], "stop_token_ids": [1, 2]}
    params = await sampled(door, **given, **lists, logprobs=True, top_logprobs=4)
    expected = SamplingParams(**given, stop=("a", "b"), stop_token_ids=(1, 2), logprobs=4)
    assert params == expected


@pytest.mark.parametrize("value", [None, "off"])
async def test_what_is_off_is_as_if_it_were_not_there(door, value):
    off = {
        "temperature": 0, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1,
        "presence_penalty": 0, "frequency_penalty": 0, "stop": [], "stop_token_ids": [],
        "min_tokens": 0, "ignore_eos": False, "n": 1, "logprobs": False,
        "response_format": {"type": "text"}, "structured_outputs": {},
    }  # fmt: skip
    fields = off if value else dict.fromkeys(off)
    assert await sampled(door, **fields, seed=1) == SamplingParams(seed=1)


@pytest.mark.parametrize(
    ("field", "value", "constraint"),
    [
        ("response_format", {"type": "json_object"}, Constraint.json_object()),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
            Constraint.json_schema(SCHEMA),
        ),
        ("guided_json", SCHEMA, Constraint.json_schema(SCHEMA)),
        ("guided_json", json.dumps(SCHEMA), Constraint.json_schema(SCHEMA)),
        ("guided_regex", "[0-9]+元", Constraint.regex("[0-9]+元")),
        ("guided_choice", ["是", "否"], Constraint.choice(["是", "否"])),
        ("structured_outputs", {"json": SCHEMA}, Constraint.json_schema(SCHEMA)),
        ("structured_outputs", {"regex": "a"}, Constraint.regex("a")),
        ("structured_outputs", {"choice": ["a"]}, Constraint.choice(["a"])),
        ("structured_outputs", {"json_object": True}, Constraint.json_object()),
    ],
)
async def test_every_way_to_ask_for_a_form_means_one_thing(door, field, value, constraint):
    assert (await sampled(door, **{field: value})).constraint == constraint


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"guided_regex": "(a"}, "unclosed group"),
        ({"guided_json": {"type": "price"}}, "price"),
        ({"guided_json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"guided_regex": "a" * 40_000}, "32768"),
        ({"guided_choice": ["a" * 40_000]}, "32768"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "not",
        ),
    ],
)
async def test_a_form_that_cannot_be_followed_is_refused_with_the_reason(door, fields, word):
    error = await refused(door, **fields)
    assert error["code"] == "invalid_constraint"
    assert error["param"] == next(iter(fields))
    assert word in error["message"]


async def test_a_schema_nested_without_end_is_refused(door):
    raw = json.dumps(body(guided_json="@")).replace('"@"', '{"items":' * 2000 + "{}" + "}" * 2000)
    answer = await door.http.post(CHAT, content=raw)
    assert answer.status_code == 400
    assert await door.waiting() == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_json": {}, "response_format": {"type": "json_object"}}, "guided_json"),
        ({"guided_regex": "a", "min_tokens": 1}, "min_tokens"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"logprobs": True, "top_logprobs": 20, "n": 8, "max_tokens": 2000}, "top_logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ],
)
async def test_what_does_not_go_together_is_refused_by_name(door, fields, param):
    error = await refused(door, **fields)
    assert error["param"] == param
    assert error["code"] == "invalid_request"


async def test_several_answers_cost_as_many_times(door):
    costs = []
    for n in (1, 4):
        call = asyncio.create_task(door.http.post(CHAT, json=body(n=n)))
        await eventually(door.waiting)
        [lease] = await door.queue.claim("w", 1, 10**9)
        costs.append(lease.cost_total)
        await door.queue.finish([Outcome(lease.task_id, lease.fence, "a")])
        await call
    assert costs[1] == 4 * costs[0]


async def predict(door: Door, **fields) -> object:
    data = {"prompt": "What?", **fields}
    return await door.http.post("/predict", files={"image": picture()}, data=data)


async def test_predict_takes_the_same_parameters_as_text(door):
    fields = {
        "max_tokens": "9", "temperature": "0.5", "top_k": "7", "min_p": ".1", "seed": "-5",
        "ignore_eos": "true", "stop": ["a", "[1]"], "stop_token_ids": ["1", "2"],
    }  # fmt: skip
    async with working(door) as worker:
        assert (await predict(door, **fields)).status_code == 200
        choices = {"guided_choice": ["是", "否"]}
        assert (await predict(door, **choices)).status_code == 200
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        assert (await predict(door, response_format=json.dumps(wanted))).status_code == 200
        await eventually(lambda: len(worker.seen) == 3)
    first, second, third = (request.sampling for request in worker.seen)
    assert first == SamplingParams(
        max_tokens=9, temperature=0.5, top_k=7, min_p=0.1, seed=-5, ignore_eos=True,
        stop=("a", "[1]"), stop_token_ids=(1, 2),
    )  # fmt: skip
    assert second.constraint == Constraint.choice(["是", "否"])
    assert third.constraint == Constraint.json_schema(SCHEMA)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "3"}, "temperature"),
        ({"max_tokens": "1.5"}, "max_tokens"),
        ({"max_tokens": "9999"}, "2048"),
        ({"max_tokens": ["1", "2"]}, "max_tokens"),
        ({"top_p": "0"}, "top_p"),
        ({"seed": str(2**63)}, "seed"),
        ({"ignore_eos": "perhaps"}, "ignore_eos"),
        ({"stop_token_ids": ["1", "x"]}, "stop_token_ids"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"n": "2"}, "n"),
        ({"logprobs": "true"}, "logprobs"),
        ({"messages": "[]"}, "messages"),
    ],
)
async def test_predict_refuses_by_name_what_it_cannot_honour(door, fields, word):
    answer = await predict(door, **fields)
    assert answer.status_code == 400
    assert word in answer.json()["error"]
    assert await door.waiting() == 0
