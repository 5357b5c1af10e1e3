"""What the engine says survives its way through the queue unchanged."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.events import Choice, Finished, FinishReason, TokenLogprob, Usage
from forebay.core.request import TaskId

tokens = st.binary(max_size=8)
logprobs = st.builds(
    TokenLogprob,
    tokens,
    st.floats(-100, 0),
    st.lists(st.tuples(tokens, st.floats(-100, 0)), max_size=3).map(tuple),
)


@given(logprobs)
def test_a_logprob_keeps_every_byte_of_its_token_also_half_a_character(told: TokenLogprob):
    through = json.dumps(told.to_json(), ensure_ascii=False).encode().decode()
    assert TokenLogprob.from_json(json.loads(through)) == told


def test_the_answers_of_a_task_are_listed_in_order():
    other = Choice("b", "length")
    finished = Finished(TaskId("a"), "a", FinishReason.STOP, Usage(1, 2), others=(other,))
    assert finished.choices == (Choice("a", "stop"), other)
