"""The parts of the upstream engine that do no I/O: event streams, answers, bodies, faults."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.call_objects import read_calls
from forebay.core.constraint import Constraint
from forebay.core.errors import TaskFailedError, error_for_code
from forebay.core.events import Choice, FinishReason, TokenLogprob, Usage
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TextPart,
)
from forebay.core.tools import Tool, ToolCall, ToolUse
from forebay.engine.upstream import faults, wire
from forebay.engine.upstream.answer import AnswerReader
from forebay.engine.upstream.faults import (
    BrokenOffError,
    RefusedError,
    RejectedError,
    UpstreamFaultError,
    fault_of_response,
)
from forebay.engine.upstream.sse import MOST_EVENT_BYTES, EventSplitter, EventTooLargeError
from forebay.engine.upstream.transport import Address
from tests.engine.fake_upstream import DONE, delta, event, usage

# Event streams


def split(stream: bytes, *cuts: int) -> list[bytes]:
    splitter, ends = EventSplitter(), sorted({0, len(stream), *cuts})
    parts = [stream[a:b] for a, b in pairwise(ends)]
    return [one for part in parts for one in splitter.feed(part)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@given(data=st.data())
def test_events_are_the_same_however_the_bytes_arrive(end: bytes, data: st.DataObject) -> None:
    lines = [
        ": hello",
        "event: x",
        "data: one",
        "id: 3",
        "",
        "",
        "data:two",
        "data: 二 ",
        "",
        "data",
    ]
    lines += ["", "retry: 5", "", "data: never ended"]
    stream = b"\xef\xbb\xbf" + end.join(line.encode() for line in lines)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert split(stream, *cuts) == [b"one", "two\n二 ".encode(), b""]


def test_a_line_separator_inside_a_text_ends_no_line() -> None:
    assert split("data: a\u2028b\x85c\n\n".encode()) == ["a\u2028b\x85c".encode()]


@pytest.mark.parametrize("head", [b"data: ", b"data: x\ndata: ", b": ", b""])
@pytest.mark.parametrize("rest", [b"x", b"data: \n"])
def test_an_event_or_line_without_an_end_is_bounded(head: bytes, rest: bytes) -> None:
    endless = b"".join((head, rest * (MOST_EVENT_BYTES + 1)))
    with pytest.raises(EventTooLargeError):
        split(endless, *range(0, len(endless), 2**16))


# Answers


def read(*parts: bytes, max_tokens: int = 100, n: int = 1, tools: bool = False) -> AnswerReader:
    reader = AnswerReader(SamplingParams(max_tokens=max_tokens, n=n), tools=tools)
    reader.said = [new for part in parts for new in reader.feed(part)]
    return reader


def test_an_answer_is_its_deltas_and_the_servers_own_count() -> None:
    opening = event(choices=[{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}])
    reader = read(opening, delta("价格"), delta("是12"), delta("", "stop"), usage(40, 9), DONE)
    assert [(new.text, new.tokens) for new in reader.said] == [("价格", 1), ("是12", 1)]
    assert (reader.choices(), reader.done) == ([Choice("价格是12", FinishReason.STOP)], True)
    assert reader.usage == Usage(40, 9)


def test_tokens_are_counted_where_the_server_does_not() -> None:
    reader = read(delta("a"), delta(""), delta("b"), delta("c", "length"), DONE)
    assert reader.usage == Usage(0, 3)
    assert reader.choices()[0].reason == FinishReason.LENGTH


def test_a_count_in_every_chunk_is_believed_over_the_number_of_chunks() -> None:
    def chunk(text: str, tokens: int) -> bytes:
        choice = {"index": 0, "delta": {"content": text}}
        return event(choices=[choice], usage={"prompt_tokens": 5, "completion_tokens": tokens})

    reader = read(chunk("ab", 2), chunk("cde", 5), delta("", "stop"))
    assert [new.tokens for new in reader.said] == [2, 3]
    assert reader.usage == Usage(5, 5)


def choice(index: int, text: str, reason: str | None = None, **more: object) -> dict[str, object]:
    return {"index": index, "delta": {"content": text}, "finish_reason": reason, **more}


def token(text: str, logprob: float, told: object) -> dict[str, object]:
    return {"token": text, "logprob": logprob, "bytes": told}


def test_several_answers_grow_apart_and_end_apart() -> None:
    parts = [
        event(choices=[choice(1, "b1"), choice(0, "a1")]),
        event(choices=[choice(0, "a2", "length")]),
        event(choices=[choice(1, "b2", "stop")]),
    ]
    reader = read(*parts[:2], n=2)
    assert not reader.whole
    reader = read(*parts, n=2)
    assert [(new.index, new.text) for new in reader.said] == [
        (1, "b1"),
        (0, "a1"),
        (0, "a2"),
        (1, "b2"),
    ]
    assert reader.choices() == [Choice("a1a2", "length"), Choice("b1b2", "stop")]


def test_log_probabilities_come_as_bytes_half_of_a_character_too() -> None:
    content = [{**token("\ufffd", -1.5, [0xE4]), "top_logprobs": [token("a", -2, None)]}]
    reader = read(event(choices=[choice(0, "", logprobs={"content": content})]), delta("x", "stop"))
    expected = (TokenLogprob(b"\xe4", -1.5, ((b"a", -2.0),)),)
    assert reader.said[0].logprobs == expected
    assert reader.choices() == [Choice("x", "stop", expected)]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "stop"), ("eos_token", "stop"), ("length", "length"), ("content_filter",) * 2],
)
def test_an_answers_end_has_one_of_our_reasons(theirs: str, ours: str) -> None:
    assert read(delta("a", theirs)).choices()[0].reason == ours


def test_a_call_of_a_tool_fails_the_task_and_says_so() -> None:
    with pytest.raises(RejectedError, match="tool") as raised:
        read(delta("a", "tool_calls"))
    assert error_for_code(raised.value.code).status == 502
    with pytest.raises(RejectedError, match="tool"):
        read(called(0, "f"))


def called(index: int, name: str | None = None, arguments: str = "") -> bytes:
    function = {"arguments": arguments, **({} if name is None else {"name": name})}
    piece = {"index": index, "id": "theirs", "type": "function", "function": function}
    return event(choices=[{"index": 0, "delta": {"content": None, "tool_calls": [piece]}}])


def test_calls_of_tools_are_put_into_the_text_once_they_are_whole() -> None:
    parts = [delta("See."), called(0, "f"), called(0, None, '{"a<b": '), called(0, None, "1}")]
    reader = read(*parts, called(1, "g", "{}"), delta("", "tool_calls"), tools=True)
    [choice] = reader.choices()
    assert choice.reason == "stop"
    assert "".join(one.text for one in reader.said) == choice.text
    assert choice.text.count("<") == 4
    use = ToolUse(tuple(Tool.of({"function": {"name": name}}) for name in "fg"))
    message, _ = read_calls(choice, use, "t")
    assert message["content"] == "See."
    found = [call["function"] for call in message["tool_calls"]]
    assert found == [
        {"name": "f", "arguments": '{"a<b": 1}'},
        {"name": "g", "arguments": "{}"},
    ]


def test_a_call_that_was_cut_off_upstream_is_none() -> None:
    reader = read(called(0, "f", "{}"), called(1, "g", '{"a": '), delta("", "length"), tools=True)
    [choice] = reader.choices()
    assert (choice.reason, choice.text.count("<tool_call>")) == ("length", 1)


@pytest.mark.parametrize(
    "pieces", [7, [7], [{"function": 7}], [{"function": {"name": 7}}], [{"index": []}]]
)
def test_calls_of_no_form_break_the_answer_off(pieces: object) -> None:
    with pytest.raises(BrokenOffError):
        read(event(choices=[{"index": 0, "delta": {"tool_calls": pieces}}]), tools=True)


@pytest.mark.parametrize(
    "part",
    [
        b"data: {not json}\n\n",
        b"data: [1, 2]\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: \xff\xfe\n\n",
        event(choices="none"),
        event(choices=[7]),
        event(choices=[{"index": 0, "delta": "text"}]),
        event(choices=[{"index": 0, "delta": {"content": ["a"]}}]),
        event(choices=[{"index": 1, "delta": {"content": "not asked for"}}]),
        event(choices=[{"index": -1, "delta": {"content": "a"}}]),
        event(choices=[{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "a"}]}}]),
        event(choices=[{"index": 0, "delta": {}, "logprobs": {"content": 7}}]),
        b'data: {"choices":[{"logprobs":{"content":[{"token":"a","logprob":NaN}]}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n',
        event(choices=[choice(0, "a", logprobs={"content": [token("a", -1.0, 10**13)]})]),
        b'data: {"choices":[],"usage":{"prompt_tokens":1e999}}\n\n',
        event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 10**30}),
        event(choices=[], usage={"prompt_tokens": "many"}),
        event(choices=[], usage=[1]),
        delta("a", "abort"),
        event(choices=[{"index": 0, "delta": {}, "finish_reason": {"a": 1}}]),
        event(error={"message": "engine died", "code": 500}),
        event(object="error", message="engine died"),
        event(error="engine died"),
        b"data: " + b"x" * MOST_EVENT_BYTES,
    ],
    ids=lambda part: part[:48].decode("ascii", "replace"),
)
def test_what_is_no_answer_breaks_it_off(part: bytes) -> None:
    with pytest.raises(BrokenOffError):
        read(delta("a"), part)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "m", "code": 400}, "invalid_request"),
        ({"message": "m", "code": "prompt_too_long"}, "prompt_too_long"),
        ({"message": "m", "code": "inference_failed"}, "inference_failed"),
        ({"message": "m", "type": "exceed_context_size_error", "code": 400}, "prompt_too_long"),
    ],
)
def test_an_error_in_the_stream_may_be_the_requests_own_fault(error: object, code: str) -> None:
    with pytest.raises(RejectedError) as raised:
        read(delta("a"), event(error=error))
    assert raised.value.code == code


def test_a_server_that_does_not_stop_is_stopped() -> None:
    with pytest.raises(BrokenOffError, match="more than an answer"):
        read(*(delta("x" * 1000) for _ in range(100)), max_tokens=1)
    with pytest.raises(BrokenOffError, match="more than an answer"):
        read(delta("") * 5000, max_tokens=1)


def test_log_probabilities_without_end_are_bounded() -> None:
    many = event(choices=[choice(0, "a", logprobs={"content": [token("a", -1.0, None)] * 5000})])
    with pytest.raises(BrokenOffError, match="more than an answer"):
        read(*[many] * 20, max_tokens=1)
    most = [token(f"w{index}", -12.345678901234567, [228, 184, 173]) for index in range(20)]
    full = {"content": [{**token("中", -1.0, [228, 184, 173]), "top_logprobs": most}]}
    reader = read(*[event(choices=[choice(0, "中", logprobs=full)])] * 300, max_tokens=300)
    assert len(reader.said) == 300


def test_what_was_read_before_an_error_is_told_before_it() -> None:
    reader, said = AnswerReader(SamplingParams(n=2)), []
    whole = event(choices=[choice(1, "b", "stop")]), event(choices=[choice(0, "a", "stop"), 7])
    with pytest.raises(BrokenOffError):
        said.extend(reader.feed(b"".join(whole)))
    assert [(one.index, one.text) for one in said] == [(1, "b"), (0, "a")]
    assert [one.text for one in reader.choices()] == ["a", "b"]


def test_a_stream_that_ends_before_its_answer_is_no_answer() -> None:
    with pytest.raises(BrokenOffError, match="before the answer's end"):
        read(delta("a"), DONE).choices()


def test_a_server_that_gives_fewer_answers_than_asked_for_fails_the_task_and_says_so() -> None:
    with pytest.raises(RejectedError, match="1 of the 3 answers") as raised:
        read(delta("a", "stop"), DONE, n=3).choices()
    assert error_for_code(raised.value.code).status == 502
    with pytest.raises(BrokenOffError):  # it may have been about to give the others
        read(delta("a", "stop"), n=3).choices()
    with pytest.raises(BrokenOffError):
        read(delta("a", "stop"), event(choices=[choice(1, "b")]), DONE, n=3).choices()


_WORDS = ["id", "index", "delta", "content", "logprobs", "token", "logprob", "bytes", "usage"]
_WORDS += ["tool_calls", "function", "name", "arguments"]
_WORDS += ["choices", "error", "finish_reason", "top_logprobs", "completion_tokens", "message"]
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("stop")
ANY_JSON = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(ANY_JSON, max_size=3), ANY_JSON, ANY_JSON, st.sampled_from([1, 2]))
def test_whatever_a_server_sends_is_an_answer_or_a_fault(
    choices: list[object], usage: object, error: object, n: int
) -> None:
    reader, said = AnswerReader(SamplingParams(n=n, logprobs=1), tools=n > 1), []
    with contextlib.suppress(UpstreamFaultError):
        said.extend(reader.feed(event(choices=choices, usage=usage)))
        said.extend(reader.feed(event(choices=choices, error=error)))
    for index, answer in enumerate(reader._answers):
        assert "".join(answer.texts) == "".join(one.text for one in said if one.index == index)
    assert 0 <= reader.usage.prompt_tokens < 2**63
    with contextlib.suppress(UpstreamFaultError):
        reader.choices()


@given(st.binary())
def test_bytes_of_no_form_are_a_fault(noise: bytes) -> None:
    reader = AnswerReader(SamplingParams())
    with contextlib.suppress(UpstreamFaultError):
        list(reader.feed(b"data: " + noise + b"\n\n"))


# Bodies

PICTURE = b"\xff\xd8 a picture"


def request(**sampling: object) -> InferenceRequest:
    picture = ImagePart("1" * 64, 8, 8)
    messages = (
        Message(Role.SYSTEM, (TextPart("be short"),)),
        Message(Role.USER, (picture, TextPart("价格?"))),
    )
    return InferenceRequest("ours", messages, SamplingParams(**sampling))


def tool(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "strict": True}}


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({}, {}),
        ({"required": True}, {"tool_choice": "required"}),
        (
            {"named": "g", "parallel": False},
            {
                "tool_choice": {"type": "function", "function": {"name": "g"}},
                "parallel_tool_calls": False,
            },
        ),
    ],
)
def test_functions_and_calls_are_sent_as_they_came(
    more: dict[str, object], sent: dict[str, object]
) -> None:
    messages = (
        Message(Role.ASSISTANT, (), (ToolCall("c1", "f", '{"a":  1}'),)),
        Message(Role.TOOL, (TextPart("12"),), call_id="c1"),
    )
    tools = [tool("f"), tool("g")]
    use = ToolUse(tuple(map(Tool.of, tools)), **more)
    body = json.loads(wire.request_body("m", InferenceRequest("ours", messages, tools=use), {}))
    fields_of_tools = {"tools", "tool_choice", "parallel_tool_calls"}
    assert {name: body[name] for name in fields_of_tools & body.keys()} == {"tools": tools, **sent}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":  1}'}}
    assert body["messages"] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "12", "tool_call_id": "c1"},
    ]


def test_every_field_of_the_sampling_is_passed_on() -> None:
    assert set(wire.SAMPLING) == {one.name for one in fields(SamplingParams)}


def test_what_is_not_the_default_is_sent_by_its_name_and_value() -> None:
    plain = {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 7,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.75,
        "seed": 2**60,
        "stop": ("a", "b"),
        "stop_token_ids": (1, 2),
        "min_tokens": 3,
        "ignore_eos": True,
        "n": 2,
    }
    told = {"logprobs": 4, "constraint": Constraint.regex("a+")}
    assert plain.keys() | told.keys() == {one.name for one in fields(SamplingParams)}
    assert wire.sampling_fields(SamplingParams(**plain, **told)) == {
        **plain,
        "logprobs": True,
        "top_logprobs": 4,
        "structured_outputs": {"regex": "a+"},
    }


def test_a_form_of_answer_is_asked_for_by_the_names_that_servers_know() -> None:
    schema = {"type": "object", "properties": {"价格": {"type": "number"}}}
    sent = wire.sampling_fields(SamplingParams(constraint=Constraint.json_schema(schema)))
    assert sent["response_format"]["json_schema"]["schema"] == schema
    sent = wire.sampling_fields(SamplingParams(constraint=Constraint.choice(["是", "no"])))
    assert sent["structured_outputs"] == {"choice": ["是", "no"]}


def test_greedy_is_said_although_it_is_our_default() -> None:
    assert wire.sampling_fields(SamplingParams()) == {"max_tokens": 256, "temperature": 0.0}


def test_a_picture_is_sent_as_its_own_bytes() -> None:
    body = json.loads(wire.request_body("theirs", request(), {"1" * 64: PICTURE}))
    assert (body["model"], body["stream"]) == ("theirs", True)
    assert body["stream_options"] == {"include_usage": True}
    system, user = body["messages"]
    assert system == {"role": "system", "content": "be short"}
    url = user["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,"), validate=True) == PICTURE
    assert user["content"][1] == {"type": "text", "text": "价格?"}


def test_a_picture_that_is_gone_is_told() -> None:
    with pytest.raises(TaskFailedError, match="no longer stored"):
        wire.request_body("theirs", request(), {})


# Faults

HIDDEN = ("sk-secret-1", "vllm.internal")


def test_what_a_client_is_told_names_no_address_and_no_key() -> None:
    words = (
        "bad key sk-secret-1 at http://10.0.0.3:8000/v1, vllm.internal:8000 or 10.1.2.3:80,\n"
        "\x1b[31m got data:image/jpeg;base64,AAAA " + "x" * 10_000
    )
    fault = fault_of_response(400, None, json.dumps({"error": {"message": words}}).encode(), HIDDEN)
    assert isinstance(fault, RejectedError)
    for word in (*HIDDEN, "10.0.0.3", "10.1.2.3", "8000/", "AAAA", "\x1b", "\n"):
        assert word not in fault.why
    assert "bad key" in fault.why
    assert len(fault.why) < 600


@pytest.mark.parametrize(
    ("status", "busy", "passing"),
    [(429, True, True), (503, True, True), (408, False, True), (500, False, False)]
    + [(status, False, False) for status in (301, 401, 403, 404, 418, 204, 502, 504)],
)
def test_a_refusal_says_whether_to_come_back(status: int, busy: bool, passing: bool) -> None:
    fault = fault_of_response(status, "7", b"<html>http://10.0.0.3 sk-secret-1</html>", HIDDEN)
    assert isinstance(fault, RefusedError)
    assert (fault.busy, fault.passing, fault.retry_after) == (busy, passing, 7.0)
    assert fault.why == f"the upstream answered HTTP {status}"
    assert "secret" not in str(fault)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("2", 2.0),
        ("1e9", faults.LONGEST_HOLD_S),
        ("1e400", faults.LONGEST_HOLD_S),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2065 07:28:00 GMT", faults.LONGEST_HOLD_S),
        ("Wed, 21 Oct 2065 07:28:00 -0000", faults.LONGEST_HOLD_S),
        (None, None),
    ],
)
def test_a_retry_after_is_read_and_bounded(said: str | None, seconds: float | None) -> None:
    fault = fault_of_response(503, said, b"", ())
    assert isinstance(fault, RefusedError)
    assert fault.retry_after == seconds


_DATES = st.from_regex(
    r"(Wed, )?[0-9]{1,30} (Oct|Foo) [0-9]{1,30} [0-9]{1,4}:[0-9]{2}:[0-9]{2}( [+-]?[0-9A-Z]{0,9})?",
    fullmatch=True,
)


@given(st.integers(201, 599), st.text() | _DATES, st.binary() | ANY_JSON.map(json.dumps))
def test_whatever_a_server_refuses_with_is_a_fault_of_known_form(
    status: int, retry_after: str, body: bytes | str
) -> None:
    content = body.encode() if isinstance(body, str) else body
    fault = fault_of_response(status, retry_after, content, HIDDEN)
    assert isinstance(fault, RefusedError | RejectedError)
    assert fault.why.isprintable()
    if isinstance(fault, RefusedError) and fault.retry_after is not None:
        assert 0 <= fault.retry_after <= faults.LONGEST_HOLD_S


def test_every_code_that_is_passed_on_is_one_of_ours() -> None:
    for code in {*faults._CODES.values(), *faults._CLIENTS_FAULT.values(), "upstream_failed"}:
        assert error_for_code(code).code == code


@pytest.mark.parametrize(
    ("url", "root", "api"),
    [
        ("http://a:1", "http://a:1", "http://a:1/v1"),
        ("http://a:1/v1/", "http://a:1", "http://a:1/v1"),
        ("https://a/x/v1", "https://a/x", "https://a/x/v1"),
        ("https://a/api/paas/v4", "https://a/api/paas", "https://a/api/paas/v4"),
    ],
)
def test_the_address_is_taken_with_and_without_its_version(url: str, root: str, api: str) -> None:
    address = Address(url, api_key="sk-secret-1")
    assert (address.root, address.api) == (root, api)
    assert "secret" not in repr(address)
