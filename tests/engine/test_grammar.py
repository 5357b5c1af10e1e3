"""Constrained answers of a model that knows nothing are of their form all the same."""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.core.constraint import Constraint, ConstraintKind
from forebay.core.errors import InvalidConstraintError, InvalidRequestError, TaskFailedError
from forebay.core.events import Choice, EngineEvent, Failed, Finished
from forebay.core.request import TaskId
from forebay.engine import grammar
from forebay.engine.engine import Engine
from forebay.engine.grammar import GrammarCompiler
from forebay.engine.limits import EngineLimits
from forebay.grammar_bounds import MOST_MARKS, MOST_MEETING, MOST_PATTERNS
from forebay.grammars import LONGEST, fault_of
from tests.checkpoints import build_tokenizer, write_checkpoint
from tests.reference import question

TIGHT = EngineLimits(max_running=6, token_budget=64, kv_tokens=640, kv_block=8)
"""So few blocks that sequences are preempted and recomputed."""

MAX_TOKENS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.from_folder(folder, limits=TIGHT, device="cpu")


def run(engine: Engine, requests: dict[str, dict[str, Any]]) -> dict[str, Finished | Failed]:
    """Add the requests one each second step, so that they come and go; return their ends."""
    waiting = [
        engine.prepare(TaskId(name), question("what?", **sampling), {})
        for name, sampling in requests.items()
    ]
    ends: dict[str, Finished | Failed] = {}
    for step in range(20_000):
        if waiting and step % 2 == 0:
            engine.add(waiting.pop(0))
        events: list[EngineEvent] = engine.step().events
        ends |= {e.task_id: e for e in events if isinstance(e, Finished | Failed)}
        if not engine.has_work and not waiting:
            engine.check_integrity()
            return ends
    raise AssertionError("the engine did not come to an end")


scalars = st.sampled_from(
    [
        {"type": "integer", "minimum": -50, "maximum": 1200},
        {"type": "boolean"},
        {"type": "null"},
        {"type": "string", "maxLength": 5},
        {"type": "string", "pattern": "^[a-z]{2}-[0-9]{1,3}$"},
        {"enum": ["价格", "标签", 7, None]},
        {"const": '😀\n"x\\'},
    ]
)


def objects(inner: st.SearchStrategy[dict]) -> st.SearchStrategy[dict]:
    def schema(properties: dict[str, dict], optional: int) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties)[optional:],
            "additionalProperties": False,
        }

    names = st.sampled_from(["a", "价", "price tag", "b"])
    return st.builds(schema, st.dictionaries(names, inner, max_size=3), st.integers(0, 1))


def arrays(inner: st.SearchStrategy[dict]) -> st.SearchStrategy[dict]:
    return st.builds(
        lambda items, least: {
            "type": "array", "items": items, "minItems": least, "maxItems": least + 1,
        },
        inner,
        st.integers(0, 2),
    )  # fmt: skip


schemas = objects(st.recursive(scalars, lambda inner: objects(inner) | arrays(inner), max_leaves=4))


def obeys(value: Any, schema: dict[str, Any]) -> bool:
    """Check a value against the keywords that the strategies above use."""
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    match schema["type"]:
        case "integer":
            fits = isinstance(value, int) and not isinstance(value, bool)
            return fits and schema["minimum"] <= value <= schema["maximum"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "string":
            fits = isinstance(value, str) and len(value) <= schema.get("maxLength", 99)
            return fits and re.search(schema.get("pattern", ""), value) is not None
        case "array":
            fits = isinstance(value, list)
            fits = fits and schema["minItems"] <= len(value) <= schema["maxItems"]
            return fits and all(obeys(one, schema["items"]) for one in value)
    properties = schema["properties"]
    return (
        isinstance(value, dict)
        and set(schema["required"]) <= set(value) <= set(properties)
        and all(obeys(one, properties[name]) for name, one in value.items())
    )


def check_choice(choice: Choice, constraint: Constraint, stop: tuple[str, ...]) -> None:
    """An answer is of its form, or it was cut short and says so (or stops before a stop string)."""
    text = choice.text
    assert not any(word in text for word in stop)
    if choice.reason == "length" or (stop and not whole(text, constraint)):
        return
    assert whole(text, constraint), (text, constraint)


def whole(text: str, constraint: Constraint) -> bool:
    match constraint.kind:
        case ConstraintKind.CHOICE:
            return text in json.loads(constraint.text)
        case ConstraintKind.REGEX:
            return re.fullmatch(constraint.text, text) is not None
        case ConstraintKind.JSON_SCHEMA:
            try:
                return obeys(json.loads(text), json.loads(constraint.text))
            except ValueError:
                return False


constraints = st.one_of(
    schemas.map(Constraint.json_schema),
    st.sampled_from([r"[ab]{3,8}价?", r"(yes|no)( because [a-z]{1,5})?", r"\$[0-9]{1,4}\.[0-9]{2}"])
    .map(Constraint.regex),
    st.lists(st.text("ab价😀\n\"\\ \x01", max_size=4), min_size=1, max_size=4)
    .map(Constraint.choice),
)  # fmt: skip

wishes = st.fixed_dictionaries(
    {
        "constraint": constraints,
        "temperature": st.sampled_from([0.0, 0.7, 1.5]),
        "n": st.sampled_from([1, 1, 3]),
        "stop": st.sampled_from([(), (), ("a",), ("价", "}}")]),
        "top_p": st.sampled_from([1.0, 0.8]),
        "repetition_penalty": st.sampled_from([1.0, 1.2]),
        "logprobs": st.sampled_from([None, 2]),
        "seed": st.integers(0, 2**40),
    }
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(batch=st.lists(wishes, min_size=1, max_size=6), free=st.integers(0, 2))
def test_every_answer_of_a_mixed_batch_is_of_its_form(
    engine: Engine, batch: list[dict[str, Any]], free: int
) -> None:
    requests = {f"bound{at}": {**wish, "max_tokens": MAX_TOKENS} for at, wish in enumerate(batch)}
    # long ones beside them, so that blocks run out
    requests |= {f"free{at}": {"max_tokens": 150, "temperature": 1.0} for at in range(free)}
    ends = run(engine, requests)
    assert set(ends) == set(requests)
    for name, end in ends.items():
        assert isinstance(end, Finished), end
        if name.startswith("free"):
            continue
        wish = requests[name]
        assert len(end.choices) == wish["n"]
        for choice in end.choices:
            check_choice(choice, wish["constraint"], wish["stop"])


def test_preemption_changes_no_constrained_answer(folder: Path) -> None:
    schema = {
        "type": "array", "items": {"type": "integer"}, "minItems": 12, "maxItems": 12,
    }  # fmt: skip
    wish = {
        "constraint": Constraint.json_schema(schema), "temperature": 1.0, "seed": 7, "n": 2,
        "frequency_penalty": 0.5, "max_tokens": 200, "logprobs": 1,
    }  # fmt: skip
    roomy = Engine.from_folder(folder, limits=EngineLimits(kv_tokens=8192), device="cpu")
    alone = run(roomy, {"a": wish})["a"]
    assert isinstance(alone, Finished)
    tight = EngineLimits(max_running=4, token_budget=32, kv_tokens=304, kv_block=4)
    engine = Engine.from_folder(folder, limits=tight, device="cpu")
    engine.add(engine.prepare(TaskId("a"), question("what?", **wish), {}))
    for at in range(3):
        other = question("12", max_tokens=120, temperature=1.0, seed=at)
        engine.add(engine.prepare(TaskId(f"other{at}"), other, {}))
    preempted, ends = 0, {}
    while engine.has_work:
        result = engine.step()
        preempted += result.stats.preempted
        ends |= {e.task_id: e for e in result.events if isinstance(e, Finished)}
    assert preempted > 0
    assert [choice.text for choice in ends["a"].choices] == [c.text for c in alone.choices]
    assert [c.reason for c in ends["a"].choices] == ["stop", "stop"]
    assert ends["a"].usage == alone.usage


def test_an_answer_that_meets_its_limit_in_mid_form_says_length(engine: Engine) -> None:
    wish = {"constraint": Constraint.regex("a{50}"), "max_tokens": 7}
    end = run(engine, {"a": wish})["a"]
    assert isinstance(end, Finished)
    assert (end.text, end.reason) == ("aaaaaaa", "length")


def test_an_answer_that_is_complete_ends_without_another_step(engine: Engine) -> None:
    wish = {"constraint": Constraint.choice(["ab"]), "max_tokens": 2}
    end = run(engine, {"a": wish})["a"]
    assert isinstance(end, Finished)
    assert (end.text, end.reason, end.usage.completion_tokens) == ("ab", "stop", 2)


def test_a_grammar_too_heavy_to_follow_fails_its_task_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = engine._preparer.grammars.compile(Constraint.regex("[ab]{9}"))

    def heavy(_: object) -> bytes:
        raise InvalidConstraintError("the constraint cannot be followed: too many states")

    monkeypatch.setattr(type(state), "allowed", heavy)
    wish = {"constraint": Constraint.regex("[ab]{9}"), "n": 3}
    ends = run(engine, {"heavy": wish, "fine": {"max_tokens": 5}})
    assert isinstance(ends["fine"], Finished)
    heavy_end = ends["heavy"]
    assert isinstance(heavy_end, Failed)
    assert heavy_end.code == "invalid_constraint"


WRONG = {
    "no such type": Constraint.json_schema({"type": "price"}),
    "unknown keyword": Constraint.json_schema({"type": "array", "uniqueItems": True}),
    "elsewhere": Constraint.json_schema({"$ref": "https://example.com/schema"}),
    "unsatisfiable": Constraint.json_schema({"allOf": [{"type": "null"}, {"type": "string"}]}),
    "not JSON": Constraint(ConstraintKind.JSON_SCHEMA, "{"),
    "not an object": Constraint(ConstraintKind.JSON_SCHEMA, "[1]"),
    "bad expression": Constraint.regex("(a"),
    "look-ahead": Constraint.regex("(?=a)b"),
    "deep expression": Constraint.regex("(" * 5000 + "a" + ")" * 5000),
    "deep schema": Constraint(ConstraintKind.JSON_SCHEMA, '{"items":' * 500 + "{}" + "}" * 500),
    "bottomless schema": Constraint(ConstraintKind.JSON_SCHEMA, '{"a":' * 3000 + "{}" + "}" * 3000),
    "long": Constraint.regex("a" * (LONGEST + 1)),
    "many patterns": Constraint.json_schema(
        {"patternProperties": {f"^{at}": {} for at in range(MOST_PATTERNS + 1)}}
    ),
    "a row of parts that may be missing": Constraint.regex(r"\w?" * MOST_MARKS),
    "many such rows": Constraint.json_schema(
        {"properties": {f"p{at}": {"pattern": "a?" * (100 + at)} for at in range(100)}}
    ),
    "division by a large number": Constraint.json_schema({"multipleOf": 999_983}),
    "division by a large negative number": Constraint.json_schema({"multipleOf": -999_983}),
    "division by many numbers": Constraint.json_schema(
        {"allOf": [{"multipleOf": 997}, {"multipleOf": 0.991}]}
    ),
    "a panic of the library": Constraint.json_schema({"enum": [-1e18, -(10**18) + 1]}),
    "the least of integers": Constraint.json_schema({"const": -(2**63)}),
    "one that rounds to it": Constraint.json_schema({"enum": [["a", {"b": -(2**63) + 1}]]}),
    "a least bound": Constraint.json_schema({"type": "integer", "minimum": -1e19, "maximum": -9}),
    "lenient by its own word": Constraint.json_schema(
        {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}
    ),
}


@pytest.mark.parametrize("constraint", WRONG.values(), ids=WRONG.keys())
def test_what_the_door_refuses_the_engine_refuses_too(
    engine: Engine, constraint: Constraint
) -> None:
    fault = fault_of(constraint)
    assert fault
    assert len(fault) < 400
    assert "\n" not in fault
    with pytest.raises(InvalidConstraintError):
        engine.prepare(TaskId("a"), question("what?", constraint=constraint), {})


def pattern(at: int) -> dict[str, Any]:
    """Return a schema whose expression is cheap alone, and dear together with others."""
    first, second = chr(97 + at), chr(98 + at)
    return {"type": "string", "pattern": f".*{first}.{{10}}{second}.*"}


PATTERNS = [pattern(at) for at in range(MOST_MEETING + 1)]
CHAIN = {
    f"p{at}": {**one, "$ref": f"#/$defs/p{at + 1}"} if at < MOST_MEETING else one
    for at, one in enumerate(PATTERNS)
}
MEETINGS = {
    "together": {"allOf": PATTERNS},
    "within each other": {"allOf": [PATTERNS[0], {"allOf": PATTERNS[1:]}]},
    "in a property of all": {"allOf": [{"properties": {"a": one}} for one in PATTERNS]},
    "by alternatives": {"allOf": [{"anyOf": [one, {"type": "null"}]} for one in PATTERNS]},
    "by references": {"$ref": "#/$defs/p0", "$defs": CHAIN},
    "by a name": {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "allOf": PATTERNS}}},
    "by escapes": {"$ref": "#/$defs/a~1%62", "$defs": {"a/b": {"allOf": PATTERNS}}},
    "from another base": {
        "properties": {
            "a": {"$id": "x:y", "$ref": "#/$defs/p0", "$defs": {"p0": {"allOf": PATTERNS}}}
        },
        "$defs": {"p0": {}},
    },
    "under a name that is a keyword": {
        "properties": {"$defs": {"allOf": PATTERNS}, "allOf": {"type": "null"}}
    },
}


@pytest.mark.parametrize("schema", MEETINGS.values(), ids=MEETINGS.keys())
def test_patterns_that_one_text_must_match_are_bounded(schema: dict[str, Any]) -> None:
    fault = fault_of(Constraint.json_schema(schema))
    assert fault is not None
    assert f"match {len(PATTERNS)} patterns" in fault


def test_patterns_that_never_meet_are_not_counted_together() -> None:
    several = {f"p{at}": {"type": "string", "pattern": f"^{at}+$"} for at in range(60)}
    tree = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    **several,
                    "when": {"type": "string", "format": "date-time"},
                    "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
            }
        },
        "allOf": [{"$ref": "#/$defs/node"}],
        "properties": {"price": {"multipleOf": 0.01}, "pack": {"multipleOf": 12}},
    }
    assert fault_of(Constraint.json_schema(tree)) is None


LARGE = {
    "thousands of choices": Constraint.choice([str(at) for at in range(3800)]),
    "many properties and others": Constraint.json_schema(
        {"properties": {f"p{at}": {} for at in range(1000)}, "additionalProperties": {}}
    ),
    "long": Constraint.regex("价格" * 5000),
}


@pytest.mark.parametrize("constraint", LARGE.values(), ids=LARGE.keys())
def test_what_the_door_takes_can_be_begun(engine: Engine, constraint: Constraint) -> None:
    assert fault_of(constraint) is None
    end = run(engine, {"a": {"constraint": constraint, "max_tokens": 6, "temperature": 1.0}})["a"]
    assert isinstance(end, Finished), end


@pytest.mark.parametrize("text", ["<|user|>", "x<|image|>", "<think>a", "<|assistant|>价"])
def test_a_text_that_spells_an_added_token_comes_as_its_characters(text: str) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<think>"])
    stop = tokenizer.token_to_id("<|user|>")
    grammars = GrammarCompiler(tokenizer.to_str(), tokenizer.get_vocab_size(), [stop])
    state, said = grammars.compile(Constraint.choice([text])).fork(), []
    while not said or not state.accept(said[-1]):
        bits = state.allowed()
        said.append(next(n for n in range(8 * len(bits)) if bits[n // 8] >> (n % 8) & 1))
    assert stop not in said
    assert tokenizer.decode(said, skip_special_tokens=True) == text


@pytest.mark.parametrize("more", [{"min_tokens": 1}, {"ignore_eos": True}])
def test_a_constraint_does_not_go_with_another_word_on_the_end(
    engine: Engine, more: dict[str, Any]
) -> None:
    wish = question("what?", constraint=Constraint.regex("a"), **more)
    with pytest.raises(InvalidRequestError, match="constraint"):
        engine.prepare(TaskId("a"), wish, {})


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"type": "string", "pattern": r"[^\s\S]"}])
def test_a_form_that_no_text_has_is_refused_before_the_step(
    engine: Engine, schema: dict[str, Any]
) -> None:
    with pytest.raises(InvalidConstraintError):
        engine.prepare(TaskId("a"), question("?", constraint=Constraint.json_schema(schema)), {})


def compiler() -> GrammarCompiler:
    tokenizer = build_tokenizer()
    stop = tokenizer.token_to_id("<|user|>")
    return GrammarCompiler(tokenizer.to_str(), tokenizer.get_vocab_size(), [stop])


def test_compiled_grammars_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "MOST_COMPILED", 2)
    grammars = compiler()
    first, second, third = (Constraint.regex(text) for text in "abc")
    kept = grammars.compile(first)
    grammars.compile(second)
    assert grammars.compile(first) is kept
    grammars.compile(third)  # the second one has to go
    assert grammars.compile(first) is kept
    assert len(grammars._compiled) == 2


def test_many_threads_compile_and_fork_without_mixing_states() -> None:
    grammars = compiler()
    texts = ["ab", "ba", "aab", "bb"]
    said: dict[int, str] = {}

    def follow(at: int) -> None:
        state = grammars.compile(Constraint.regex(texts[at % 4])).fork()
        rng, text = random.Random(at), ""
        while True:
            bits = state.allowed()
            may = [n for n in range(8 * len(bits)) if bits[n // 8] >> (n % 8) & 1]
            token = rng.choice(may)
            text += TOKENIZER.id_to_token(token)
            if state.accept(token):
                break
        said[at] = text

    threads = [threading.Thread(target=follow, args=(at,)) for at in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert said == {at: texts[at % 4] for at in range(16)}


TOKENIZER = build_tokenizer()


def test_a_constraint_finds_the_vocabulary_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read it holds up the whole process, so it is done while the weights are read."""
    read = grammar.LLTokenizer
    threads: list[threading.Thread] = []

    def noted(*args: Any, **named: Any) -> Any:
        threads.append(threading.current_thread())
        return read(*args, **named)

    monkeypatch.setattr(grammar, "LLTokenizer", noted)
    engine = Engine.from_folder(folder, limits=TIGHT, device="cpu")
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()
    run(engine, {"a": {"constraint": Constraint(ConstraintKind.CHOICE, '["yes", "no"]')}})
    assert len(threads) == 1


def test_a_vocabulary_that_cannot_be_read_fails_the_constraints_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no such vocabulary")

    monkeypatch.setattr(grammar, "LLTokenizer", refuse)
    engine = Engine.from_folder(folder, limits=TIGHT, device="cpu")
    with pytest.raises(TaskFailedError, match="no such vocabulary"):
        run(engine, {"a": {"constraint": Constraint(ConstraintKind.CHOICE, '["yes", "no"]')}})
    assert isinstance(run(engine, {"a": {"max_tokens": 2}})["a"], Finished)
