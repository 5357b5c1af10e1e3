"""Calls are read out of an answer alike wherever it is cut, and no part of a mark is ever shown."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.call_objects import read_calls
from forebay.api.call_reader import Argued, CallBegun, CallReader, Said, Told
from forebay.core.events import Choice
from forebay.core.tools import MARKS, Tool, ToolUse

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["c", "f"]},
        "note": {"type": ["string", "null"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "place": {"$ref": "#/$defs/Place"},
        "shape": {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "endless": {"$ref": "#/$defs/Endless"},
        "flags": {"type": "array", "items": {"type": "boolean"}},
        "free": {},
    },
    "$defs": {
        "Place": {"type": "object"},
        "Endless": {"anyOf": [{"$ref": "#/$defs/Endless"}, {"type": "string"}]},
    },
}


def tool(name: str, parameters: Any = None, **more: Any) -> Tool:
    return Tool.of(
        {"type": "function", "function": {"name": name, "parameters": parameters, **more}}
    )


USE = ToolUse((tool("get_weather", PARAMETERS), tool("now")))


def read(text: str, *cuts: int, use: ToolUse = USE) -> tuple[list[Told], CallReader]:
    reader = CallReader(use)
    ends = sorted({0, len(text), *cuts})
    told = [one for a, b in pairwise(ends) for one in reader.feed(text[a:b])]
    return [*told, *reader.finish()], reader


def content(told: list[Told]) -> str:
    return "".join(one.text for one in told if isinstance(one, Said))


def calls(told: list[Told]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for one in told:
        if isinstance(one, CallBegun):
            assert one.index == len(found)
            found.append((one.name, ""))
        elif isinstance(one, Argued):
            assert one.index == len(found) - 1
            found[-1] = (found[-1][0], found[-1][1] + one.text)
    return found


def written(name: str, arguments: dict[str, Any], gap: str = "\n") -> str:
    """A call as the family's template writes one."""
    parts = [name]
    for key, value in arguments.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts.append(f"<arg_key>{key}</arg_key>{gap}<arg_value>{shown}</arg_value>")
    return f"<tool_call>{gap.join(parts)}{gap}</tool_call>"


no_mark = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: not any(mark in text for mark in MARKS)
)
letters = st.one_of(
    no_mark, st.sampled_from(["<", "</", "<arg_", "</arg_value", '"\\', "12", "null"])
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "city": letters,
        "days": st.integers(),
        "unit": st.sampled_from(["c", "f"]),
        "note": st.one_of(st.none(), letters.filter(lambda text: text.strip() != "null")),
        "place": st.dictionaries(no_mark, no_mark, max_size=2),
        "flags": st.lists(st.booleans(), max_size=3),
    },
)
many = st.lists(st.tuples(st.just("get_weather"), arguments), min_size=1, max_size=3)


@given(said=no_mark, wanted=many, gap=st.sampled_from(["", "\n"]), data=st.data())
def test_the_calls_of_an_answer_are_read_wherever_it_is_cut(
    said: str, wanted: list[tuple[str, dict[str, Any]]], gap: str, data: st.DataObject
) -> None:
    text = "\n".join([said, *(written(name, given, gap) for name, given in wanted)])
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=30))
    told, reader = read(text, *cuts)
    assert [(name, json.loads(given)) for name, given in calls(told)] == wanted
    assert content(told) == said.rstrip(" \t\r\n")
    assert reader.ended == len(wanted)


pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [*MARKS, "get_weather", "now", "\n", " ", "city", "days", "<", "</tool", "{"]
        ),
        no_mark,
    ),
    max_size=12,
)


@given(parts=pieces, data=st.data())
def test_whatever_a_model_writes_is_told_alike_in_one_piece_and_in_many(
    parts: list[str], data: st.DataObject
) -> None:
    text = "".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=40))
    whole, in_one = read(text)
    cut, in_many = read(text, *cuts)
    assert (content(whole), calls(whole)) == (content(cut), calls(cut))
    assert in_one.ended == in_many.ended
    for _, told in calls(whole)[: in_one.ended]:
        assert isinstance(json.loads(told), dict)
    for _, told in calls(whole)[in_one.ended :]:
        with pytest.raises(json.JSONDecodeError):
            json.loads(told)


@given(wanted=many, data=st.data())
def test_no_part_of_a_mark_is_shown_while_it_comes(
    wanted: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    text = "Let me see." + "".join(written(*one) for one in wanted)
    reader, shown = CallReader(USE), ""
    for letter in text[: data.draw(st.integers(0, len(text)))]:
        shown += content(reader.feed(letter))
        assert "Let me see.".startswith(shown)


@given(text=no_mark, data=st.data())
def test_an_answer_without_a_call_is_its_text_to_the_letter(text: str, data: st.DataObject) -> None:
    told, _ = read(text, *data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    assert content(told) == text
    assert calls(told) == []


@given(wanted=arguments, data=st.data())
def test_a_call_that_was_cut_off_stays_open(wanted: dict[str, Any], data: st.DataObject) -> None:
    text = written("get_weather", wanted)
    told, reader = read(text[: data.draw(st.integers(0, len(text) - 1))])
    assert reader.ended == 0
    for _, text in calls(told):
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("city", "12", "12"),
        ("city", " Par\nis ", " Par\nis "),
        ("city", "null", "null"),
        ("days", "12", 12),
        ("days", " 12\n", 12),
        ("days", "soon", "soon"),
        ("days", "NaN", "NaN"),
        ("note", "null", None),
        ("note", "12", "12"),
        ("either", "12", 12),
        ("either", "1.5", "1.5"),
        ("place", '{"a": [1]}', {"a": [1]}),
        ("shape", '{"a": 1}', {"a": 1}),
        ("endless", "12", "12"),
        ("free", "true", True),
        ("free", "yes", "yes"),
        ("unknown", '{"a": 1}', {"a": 1}),
        ("unknown", "[" * 5000, "[" * 5000),
    ],
)
def test_the_schema_says_what_is_a_string(key: str, value: str, meant: Any) -> None:
    text = (
        f"<tool_call>get_weather<arg_key>{key}</arg_key><arg_value>{value}</arg_value></tool_call>"
    )
    [(_, given)] = calls(read(text)[0])
    assert json.loads(given) == {key: meant}


def test_a_string_is_told_as_it_comes() -> None:
    reader = CallReader(USE)
    reader.feed("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>")
    assert reader.feed('Be"') == [Argued(0, 'Be\\"')]
    assert reader.feed("rlin</arg_va") == [Argued(0, "rlin")]


def test_one_call_is_told_where_no_more_are_wanted() -> None:
    text = written("now", {}) + written("get_weather", {"city": "x"})
    assert calls(read(text, use=ToolUse(USE.tools, parallel=False))[0]) == [("now", "{}")]


@pytest.mark.parametrize(
    "text",
    [
        "Write <tool_call> and then a name.",
        "<tool_call>no name\n",
        f"<tool_call>{'x' * 80}\n",
        "<tool_call>now<b>",
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call>{broken}</tool_call>",
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    told, reader = read(text)
    assert content(told) == text
    assert (calls(told), reader.ended) == ([], 0)


def test_a_call_of_a_server_elsewhere_is_told_to_the_letter() -> None:
    text = 'a<tool_call>{"name": "f", "arguments": "{\\"x\\":  \\"\\u003c\\"}"}</tool_call>'
    told, _ = read(text, *range(len(text)))
    assert calls(told) == [("f", '{"x":  "<"}')]
    assert content(told) == "a"


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("Sunny.", "stop", "stop"),
        (written("now", {}), "stop", "tool_calls"),
        (written("now", {}), "length", "length"),
        ("<tool_call>now\n", "length", "length"),
        ("<tool_call>now\n", "stop", "stop"),
    ],
)
def test_the_reason_is_calls_where_there_is_a_whole_one(text: str, reason: str, said: str) -> None:
    assert read_calls(Choice(text, reason), USE, "t_0")[1] == said
