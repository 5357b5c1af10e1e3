"""A request survives its way through the queue unchanged."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.request import (
    Cost,
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TextPart,
)

texts = st.builds(TextPart, st.text(max_size=50))
images = st.builds(
    ImagePart,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(1, 9000),
    st.integers(1, 9000),
)
messages = st.builds(
    Message, st.sampled_from(Role), st.lists(texts | images, min_size=1, max_size=5).map(tuple)
)
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 4096),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    seed=st.none() | st.integers(0, 2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=8), max_size=4).map(tuple),
)
requests = st.builds(
    InferenceRequest,
    model=st.text(min_size=1, max_size=20),
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    sampling=samplings,
)


@given(request=requests)
def test_a_request_is_the_same_after_json(request: InferenceRequest):
    assert InferenceRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


@given(request=requests)
def test_images_come_in_order_of_appearance(request: InferenceRequest):
    parts = [part for message in request.messages for part in message.parts]
    assert list(request.images) == [part for part in parts if isinstance(part, ImagePart)]


def test_a_cost_is_the_sum_of_its_tokens():
    assert Cost(visual_tokens=64, text_tokens=20, output_tokens=100).total == 184
