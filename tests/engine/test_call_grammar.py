"""Under the grammar of calls a model that knows nothing writes calls by their schemas, as marks."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.api.call_objects import read_calls
from forebay.core.constraint import Constraint
from forebay.core.events import Choice
from forebay.core.tools import MARKS, Tool, ToolUse
from forebay.engine.grammar import GrammarCompiler, GrammarState
from forebay.models.tokenizer import TextTokenizer
from tests.checkpoints import TOOL_MARKS, build_tokenizer

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 99},
        "unit": {"enum": ["c", "", 7, None]},
        "note": {"anyOf": [{"type": "string", "enum": ["a b"]}, {"type": "null"}]},
        "place": {"$ref": "#/$defs/Place"},
        "hourly": {"type": ["boolean"]},
    },
    "required": ["city", "days", "place"],
    "$defs": {
        "Place": {
            "type": "object",
            "properties": {"at": {"enum": ["<here>", "there"]}},
            "required": ["at"],
            "additionalProperties": False,
        }
    },
}
STOP = "<|observation|>"


def tool(name: str, parameters: Any = None, *, strict: bool = False) -> Tool:
    function = {"name": name, "parameters": parameters, "strict": strict}
    return Tool.of({"type": "function", "function": function})


TOOLS = (tool("get_weather", PARAMETERS), tool("now"))
STRICT = (tool("get_weather", PARAMETERS, strict=True), tool("now"))


class Rig:
    """A compiler of one vocabulary: the marks are tokens of it, or are spelled."""

    def __init__(self, marks: tuple[str, ...]) -> None:
        self.text = TextTokenizer.of(build_tokenizer(marks))
        vocabulary = self.text.tokenizer.get_vocab_size()
        stop = self.text.token_id(STOP)
        assert stop is not None
        self.stop = stop
        self.compiler = GrammarCompiler(
            self.text.tokenizer.to_str(), vocabulary, [stop], self.text.call_marks
        )

    def begin(self, use: ToolUse) -> GrammarState:
        constraint = Constraint.calls(use)
        assert constraint is not None
        return self.compiler.compile(constraint).fork()

    def takes(self, use: ToolUse, text: str) -> bool:
        """Whether an answer may be ``text`` and end there."""
        state = self.begin(use)
        ids = self.text.encode(text)
        return all(_may(state, token) and not state.accept(token) for token in ids) and _may(
            state, self.stop
        )

    def write(self, use: ToolUse, chance: random.Random, most: int) -> list[int] | None:
        """Return the tokens of an answer drawn by chance, None where it does not come to an end.

        Ends and marks are drawn more often than letters, so that there are some.
        """
        state, said, begun = self.begin(use), list[int](), list[int]()
        for _ in range(most):
            bits = state.allowed()
            some = [n for n in range(8 * len(bits)) if bits[n // 8] >> (n % 8) & 1]
            token = self._next(some, chance, begun)
            if token == self.stop:
                return said
            said.append(token)
            if state.accept(token):
                return said
        return None

    def _next(self, some: list[int], chance: random.Random, begun: list[int]) -> int:
        """Draw one of the tokens that may come. ``begun``: the rest of a mark that is spelled."""
        if begun and begun[0] in some:
            return begun.pop(0)
        begun.clear()
        rare = [n for n in some if n == self.stop or n in self.text.call_marks.values()]
        if rare and chance.random() < 0.4:
            return chance.choice(rare)
        first, *rest = self.text.encode(MARKS.value_end)
        if first in some and chance.random() < 0.3:
            begun.extend(rest)
            return first
        return chance.choice(some)

    def shown(self, ids: list[int]) -> str:
        return b"".join(map(self.text.shown_bytes, ids)).decode(errors="replace")


def _may(state: GrammarState, token: int) -> bool:
    return bool(state.allowed()[token // 8] >> (token % 8) & 1)


TOKENS, SPELLED = Rig(TOOL_MARKS), Rig(())


def check(message: dict[str, Any]) -> None:
    for call in message["tool_calls"]:
        given = json.loads(call["function"]["arguments"])
        if call["function"]["name"] == "now":
            assert given == {}
            continue
        assert call["function"]["name"] == "get_weather"
        assert {"city", "days", "place"} <= given.keys() <= PARAMETERS["properties"].keys()
        assert isinstance(given["city"], str)
        assert 1 <= given["days"] <= 99
        assert given["place"]["at"] in ("<here>", "there")
        assert given.get("unit") in ("c", "", 7, None)
        assert given.get("note") in ("a b", None)
        assert isinstance(given.get("hourly", True), bool)


@pytest.mark.parametrize("rig", [TOKENS, SPELLED], ids=["tokens", "spelled"])
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), several=st.booleans())
def test_what_must_be_a_call_is_one_by_its_schema(rig: Rig, seed: int, several: bool) -> None:
    use = ToolUse(TOOLS, required=True, parallel=several)
    said = rig.write(use, random.Random(seed), 600)
    if said is None:
        return
    message, reason = read_calls(Choice(rig.shown(said), "stop"), use, "t")
    assert reason == "tool_calls"
    assert message["content"] is None
    assert several or len(message["tool_calls"]) == 1
    check(message)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9))
def test_strict_functions_are_called_by_the_letter_after_any_text(seed: int) -> None:
    use = ToolUse(STRICT)
    said = TOKENS.write(use, random.Random(seed), 600)
    if said is None:
        return
    message, _ = read_calls(Choice(TOKENS.shown(said), "stop"), use, "t")
    if "tool_calls" in message:
        check(message)
    else:
        assert MARKS.call not in message["content"]


WEATHER = (
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>P <b>\n</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>{days}</arg_value>\n<arg_key>place</arg_key>\n"
    '<arg_value>{{"at": "there"}}</arg_value>\n</tool_call>'
)
NOW = "<tool_call>now</tool_call>"
FINE, WRONG = WEATHER.format(days=12), WEATHER.format(days=100)


@pytest.mark.parametrize("rig", [TOKENS, SPELLED], ids=["tokens", "spelled"])
@pytest.mark.parametrize(
    ("use", "text", "fits"),
    [
        (ToolUse(TOOLS, required=True), FINE, True),
        (ToolUse(TOOLS, required=True), "\n" + NOW + "\n" + FINE, True),
        (ToolUse(TOOLS, required=True), FINE.replace("\n<", "<"), True),
        (ToolUse(TOOLS, required=True), WRONG, False),
        (ToolUse(TOOLS, required=True), "Hm. " + FINE, False),
        (ToolUse(TOOLS, required=True), "<tool_call>other</tool_call>", False),
        (ToolUse(TOOLS, required=True, parallel=False), NOW + NOW, False),
        (ToolUse(TOOLS, named="now"), NOW, True),
        (ToolUse(TOOLS, named="now"), FINE, False),
        (ToolUse(TOOLS, named="now"), NOW + NOW, False),
        (ToolUse(STRICT), "Hm, a <b> 1.", True),
        (ToolUse(STRICT), "Hm.\n" + FINE + NOW, True),
        (ToolUse(STRICT), "Hm.\n" + WRONG, False),
    ],
)
def test_the_form_is_the_families(rig: Rig, use: ToolUse, text: str, fits: bool) -> None:
    assert rig.takes(use, text) is fits


def test_a_mark_that_is_a_token_comes_as_that_token() -> None:
    state = TOKENS.begin(ToolUse(TOOLS, required=True))
    assert _may(state, TOKENS.text.call_marks[MARKS.call])
    assert not _may(state, TOKENS.text.tokenizer.token_to_id("<"))


def test_marks_are_shown_whatever_kind_of_token_they_are() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens([MARKS.call])
    text = TextTokenizer.of(tokenizer)
    assert text.shown_bytes(text.call_marks[MARKS.call]) == MARKS.call.encode()


def test_nothing_is_demanded_of_an_answer_that_may_be_text() -> None:
    assert Constraint.calls(ToolUse(TOOLS)) is None
