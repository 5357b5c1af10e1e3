"""An engine with INT8 weights: its answers are its own, whoever else is in the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forebay.core.events import Finished
from forebay.core.request import TaskId
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.models.errors import MissingFileError, QuantizationError
from forebay.models.quantization import Quantization
from tests.checkpoints import TINY, write_checkpoint
from tests.reference import contents, picture, question

LIMITS = EngineLimits(max_running=6, token_budget=96, kv_tokens=2048)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = replace(TINY, stop_tokens=())
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), shape)


def engine(folder: Path, quantization: Quantization = Quantization.INT8) -> Engine:
    return Engine.from_folder(folder, limits=LIMITS, device="cpu", quantization=quantization)


def answers(one: Engine, asked: list[int]) -> dict[int, str]:
    """The texts to the questions of these numbers, asked all at once."""
    for at in asked:
        shown = [picture(40 + 20 * at, 60, seed=at)] if at % 2 else []
        request = question("what is it? " * (at + 1), shown, max_tokens=8)
        one.add(one.prepare(TaskId(str(at)), request, contents(shown)))
    found: dict[int, str] = {}
    for _ in range(500):
        if not one.has_work:
            return found
        for event in one.step().events:
            if isinstance(event, Finished):
                found[int(event.task_id)] = event.text
    raise AssertionError("the engine did not come to an end")


def test_answers_are_the_same_alone_together_and_again(folder: Path) -> None:
    one = engine(folder)
    together = answers(one, [0, 1, 2, 3, 4])
    assert all(together.values())
    assert len(set(together.values())) > 1
    assert {at: answers(one, [at])[at] for at in together} == together
    assert answers(engine(folder), [4, 3, 2, 1, 0]) == together


def test_a_quantization_that_does_not_run_here_is_refused_at_once(folder: Path) -> None:
    with pytest.raises(QuantizationError, match="choose int8, none or auto"):
        engine(folder, Quantization.FP8)


def test_a_missing_checkpoint_is_told_as_ever(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        engine(tmp_path / "nowhere")
