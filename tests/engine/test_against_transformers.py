"""Proof: the engine's greedy answers are those of ``model.generate``, whatever shares the batch."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from forebay.core.events import Finished, FinishReason
from forebay.core.request import InferenceRequest, TaskId
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from tests.checkpoints import TINY, TINY_46V, Shape, write_checkpoint
from tests.reference import Picture, Reference, contents, picture, question

SHAPES = {
    "glm4v": TINY,
    "glm46v, one kv head, tied embeddings": replace(
        TINY_46V, kv_heads=1, tie_word_embeddings=True, layers=3
    ),
}
STOPS = ("<|endoftext|>", *"ACIYknh_1", "e")
"""Tokens that noise produces now and then, so that some answers end by themselves."""

LIMITS = {
    "roomy": EngineLimits(kv_tokens=16_384),
    "small chunks": EngineLimits(token_budget=16, vision_budget=16, max_running=5, kv_block=8),
    "few blocks": EngineLimits(
        token_budget=48, max_running=8, kv_tokens=336, kv_block=4, encoder_cache_bytes=0
    ),
}
MAX_TOKENS = 24


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys(), scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape: Shape = replace(request.param, stop_tokens=STOPS)
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), shape, seed=5)


Asked = tuple[TaskId, InferenceRequest, list[Picture]]


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    """Eighteen requests: texts and pictures of many sizes, some pictures shown twice."""
    rng = random.Random(11)
    shown = [picture(rng.randint(20, 260), rng.randint(20, 260), seed) for seed in range(10)]
    texts = ["what is the price?", "图中价格是多少?", "12", "the " * 30, "审核这张图片"]
    requests: list[Asked] = []
    for at in range(18):
        pictures = rng.sample(shown, at % 3)
        if at % 9 == 5:
            pictures = [pictures[0], pictures[0]]
        request = question(rng.choice(texts), pictures, max_tokens=MAX_TOKENS - at % 5)
        requests.append((TaskId(f"t{at}"), request, pictures))
    return requests


@pytest.fixture(scope="module")
def expected(folder: Path, asked: list[Asked]) -> dict[TaskId, list[int]]:
    reference = Reference(folder)
    return {
        task_id: reference.generate(
            request.messages,
            {p.part.sha256: p.image for p in pictures},
            request.sampling.max_tokens,
        )
        for task_id, request, pictures in asked
    }


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
def test_every_answer_of_a_mixed_batch_is_the_reference_s(
    folder: Path, asked: list[Asked], expected: dict[TaskId, list[int]], limits: EngineLimits
) -> None:
    engine = Engine.from_folder(folder, limits=limits, device="cpu")
    answers = _run(engine, asked, together=18)
    assert _texts(engine, expected) == {at: answer.text for at, answer in answers.items()}
    # and once more, now that the caches hold what they hold
    again = _run(engine, asked[::-1], together=18)
    assert {at: answer.text for at, answer in again.items()} == _texts(engine, expected)
    for task_id, answer in answers.items():
        assert answer.usage.completion_tokens == len(expected[task_id])
    assert {FinishReason.STOP, FinishReason.LENGTH} == {a.reason for a in answers.values()}


def test_answers_do_not_depend_on_when_others_come_and_go(
    folder: Path, asked: list[Asked], expected: dict[TaskId, list[int]]
) -> None:
    limits = EngineLimits(token_budget=32, max_running=4, kv_tokens=1024)
    engine = Engine.from_folder(folder, limits=limits, device="cpu")
    cancelled = {TaskId("t4"), TaskId("t9"), TaskId("t10")}
    answers = _run(engine, asked, together=3, cancelled=cancelled)
    texts = _texts(engine, expected)
    assert {at: answer.text for at, answer in answers.items()} == {
        at: text for at, text in texts.items() if at in answers
    }
    assert set(texts) - set(answers) <= cancelled


def _run(
    engine: Engine,
    asked: list[Asked],
    together: int,
    cancelled: frozenset[TaskId] | set[TaskId] = frozenset(),
) -> dict[TaskId, Finished]:
    """Add ``together`` requests, then one each second step; cancel some in mid-answer."""
    waiting = [
        engine.prepare(task_id, request, contents(pictures)) for task_id, request, pictures in asked
    ]
    for prepared in waiting[:together]:
        engine.add(prepared)
    del waiting[:together]
    answers: dict[TaskId, Finished] = {}
    for step in range(5_000):
        if waiting and step % 2:
            engine.add(waiting.pop(0))
        for task_id in cancelled.intersection(engine.running_ids):
            if step % 3 == 0:
                engine.abort(task_id)
        for event in engine.step().events:
            if isinstance(event, Finished):
                answers[event.task_id] = event
        engine.check_integrity()
        if not engine.has_work and not waiting:
            return answers
    raise AssertionError("the engine did not come to an end")


def _texts(engine: Engine, expected: dict[TaskId, list[int]]) -> dict[TaskId, str]:
    stops = engine._answers.stop_ids
    decode = engine._preparer.tokenizer.decode
    return {
        task_id: decode(tokens[:-1] if tokens[-1] in stops else tokens)
        for task_id, tokens in expected.items()
    }
