"""Ends, several answers, log-probabilities: what becomes of the tokens that the model gives."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.core.events import EngineEvent, Finished, TokenDelta
from forebay.core.request import TaskId
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from tests.checkpoints import Shape, write_checkpoint
from tests.reference import contents, picture, question

# noise produces this letter now and then
STOP = "e"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = write_checkpoint(tmp_path_factory.mktemp("m"), Shape(stop_tokens=(STOP, "a", "i")))
    limits = EngineLimits(max_running=8, token_budget=64, kv_tokens=4096)
    return Engine.from_folder(folder, limits=limits, device="cpu")


def run(engine: Engine, **sampling: Any) -> list[EngineEvent]:
    sampling = {"max_tokens": 60, "temperature": 1.3, "seed": 1, **sampling}
    engine.add(engine.prepare(TaskId("a"), question("what?", **sampling), {}))
    events: list[EngineEvent] = []
    while engine.has_work:
        events.extend(engine.step().events)
    engine.check_integrity()
    return events


def end(engine: Engine, **sampling: Any) -> Finished:
    last = run(engine, **sampling)[-1]
    assert isinstance(last, Finished)
    return last


def seed_that_stops(engine: Engine, before: int) -> tuple[int, Finished]:
    for seed in range(200):
        finished = end(engine, seed=seed)
        if finished.reason == "stop" and finished.usage.completion_tokens < before:
            return seed, finished
    raise AssertionError("the model never stops")


def test_the_models_end_is_ignored_where_that_is_asked(engine: Engine) -> None:
    seed, stopped = seed_that_stops(engine, 50)
    free = end(engine, seed=seed, ignore_eos=True)
    assert (free.reason, free.usage.completion_tokens) == ("length", 60)
    assert free.text.startswith(stopped.text)
    assert len(free.text) > len(stopped.text)


def test_no_end_comes_before_min_tokens(engine: Engine) -> None:
    seed, _ = seed_that_stops(engine, 20)
    later = end(engine, seed=seed, min_tokens=40, logprobs=0)
    assert later.usage.completion_tokens > 40
    assert not {one.token for one in later.logprobs[:40]} & {b"e", b"a", b"i"}


def test_a_stop_string_before_min_tokens_is_text(engine: Engine) -> None:
    free = end(engine, ignore_eos=True)
    word = free.text[4]
    assert end(engine, ignore_eos=True, stop=(word,)).text == free.text[: free.text.index(word)]
    later = end(engine, ignore_eos=True, stop=(word,), min_tokens=50)
    assert word in later.text
    assert free.text.startswith(later.text)


def test_a_token_id_ends_an_answer_and_is_not_shown(engine: Engine) -> None:
    tokenizer = engine._preparer.tokenizer
    free = end(engine, ignore_eos=True, logprobs=0)
    tokens = [one.token for one in free.logprobs]
    at = 7
    token_id = next(n for n in range(300) if tokenizer.token_bytes(n) == tokens[at])
    first = tokens.index(tokens[at])
    cut = end(engine, ignore_eos=True, stop_token_ids=(token_id,), logprobs=0)
    assert (cut.reason, cut.usage.completion_tokens) == ("stop", first + 1)
    assert [one.token for one in cut.logprobs] == tokens[:first]


def test_each_answer_has_its_own_deltas_and_the_task_ends_once(engine: Engine) -> None:
    events = run(engine, n=4, logprobs=2)
    *deltas, finished = events
    assert isinstance(finished, Finished)
    assert not any(isinstance(event, Finished) for event in deltas)
    assert len(finished.choices) == 4
    assert len({choice.text for choice in finished.choices}) == 4
    counted = 0
    for index, choice in enumerate(finished.choices):
        own = [d for d in deltas if isinstance(d, TokenDelta) and d.index == index]
        assert "".join(d.text for d in own) == choice.text
        assert tuple(told for d in own for told in d.logprobs) == choice.logprobs
        counted += len(choice.logprobs) + (choice.reason == "stop")
    assert finished.usage.completion_tokens == counted
    assert finished.choices[0].text == end(engine).text


def test_answers_share_the_prompt_and_the_picture(engine: Engine) -> None:
    shown = picture(150, 150, 77)
    request = question("价格" * 20, [shown], n=3, max_tokens=4, temperature=1.0, ignore_eos=True)
    engine.add(engine.prepare(TaskId("a"), request, contents([shown])))
    prefilled = spared = encoded = 0
    prompt = 0
    while engine.has_work:
        result = engine.step()
        prefilled += result.stats.prefill_tokens
        spared += result.stats.prefix_tokens
        encoded += result.stats.images_encoded
        prompt = max(
            [prompt, *(e.usage.prompt_tokens for e in result.events if isinstance(e, Finished))]
        )
    block = 16
    assert encoded == 1
    assert spared == 2 * ((prompt - 1) // block * block)
    assert prefilled + spared == 3 * prompt


def test_an_abort_takes_every_answer_along(engine: Engine) -> None:
    free = engine.free_tokens
    engine.add(engine.prepare(TaskId("a"), question("what?", n=3, ignore_eos=True), {}))
    for steps in range(4):
        if steps == 2:
            assert len(engine.running_ids) == 3
        engine.step()
    assert engine.abort(TaskId("a"))
    assert not engine.has_work
    engine.check_integrity()
    assert (engine.running_ids, engine.free_tokens) == ([], free)


def test_penalties_act_on_what_was_said(engine: Engine) -> None:
    kwargs = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 60, "logprobs": 0}
    plain = [one.token for one in end(engine, **kwargs).logprobs]
    for penalty in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0},
                    {"repetition_penalty": 3.0}):  # fmt: skip
        varied = [one.token for one in end(engine, **kwargs, **penalty).logprobs]
        assert len(set(varied)) > len(set(plain))
