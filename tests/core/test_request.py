"""A request survives its way through the queue unchanged."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.constraint import Constraint
from forebay.core.request import (
    Cost,
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TextPart,
)
from forebay.core.tools import Tool, ToolCall, ToolUse

texts = st.builds(TextPart, st.text(max_size=50))
images = st.builds(
    ImagePart,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(1, 9000),
    st.integers(1, 9000),
)
arguments = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2).map(json.dumps)
calls = st.builds(ToolCall, st.text(min_size=1), st.text(min_size=1), arguments)
messages = st.builds(
    Message,
    st.sampled_from(Role),
    st.lists(texts | images, min_size=1, max_size=5).map(tuple),
    calls=st.lists(calls, max_size=2).map(tuple),
    call_id=st.none() | st.text(min_size=1),
)
functions = st.fixed_dictionaries(
    {"name": st.text(min_size=1)}, optional={"description": st.text(max_size=20)}
)
uses = st.builds(
    ToolUse,
    tools=st.lists(
        functions.map(lambda one: Tool.of({"type": "function", "function": one})), min_size=1
    ).map(tuple),
    required=st.booleans(),
    named=st.none() | st.text(min_size=1),
    parallel=st.booleans(),
)
constraints = st.one_of(
    st.builds(Constraint.regex, st.text(max_size=20)),
    st.builds(Constraint.choice, st.lists(st.text(max_size=8), min_size=1, max_size=4)),
    st.builds(Constraint.json_schema, st.just({"type": "object", "properties": {"价": {}}})),
)
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 4096),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 100),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 2),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=8), max_size=4).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 1000), max_size=4).map(tuple),
    min_tokens=st.integers(0, 10),
    ignore_eos=st.booleans(),
    logprobs=st.none() | st.integers(0, 20),
    n=st.integers(1, 8),
    constraint=st.none() | constraints,
)
requests = st.builds(
    InferenceRequest,
    model=st.text(min_size=1, max_size=20),
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    sampling=samplings,
    raw=st.booleans(),
    tools=st.none() | uses,
)


@given(request=requests)
def test_a_request_is_the_same_after_json(request: InferenceRequest):
    assert InferenceRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


@given(request=requests)
def test_images_come_in_order_of_appearance(request: InferenceRequest):
    parts = [part for message in request.messages for part in message.parts]
    assert list(request.images) == [part for part in parts if isinstance(part, ImagePart)]


def test_a_message_of_an_older_release_gets_the_defaults_of_what_it_lacks():
    older = {"max_tokens": 5, "temperature": 0.5, "top_p": 1.0, "seed": None, "stop": ["a"]}
    assert SamplingParams.from_dict(older) == SamplingParams(
        max_tokens=5, temperature=0.5, stop=("a",)
    )
    assert SamplingParams.from_dict({}) == SamplingParams()


def test_a_message_names_only_what_was_asked_for():
    assert SamplingParams().to_dict() == {}
    assert SamplingParams(top_k=3, stop=("a",)).to_dict() == {"top_k": 3, "stop": ["a"]}


def test_a_cost_is_the_sum_of_its_tokens_for_every_answer():
    assert Cost(visual_tokens=64, text_tokens=20, output_tokens=100).total == 184
    assert Cost(visual_tokens=64, text_tokens=20, output_tokens=100, choices=3).total == 3 * 184
