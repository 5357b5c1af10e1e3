"""A model that overflows: the task it happens to fails, and nobody else notices."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forebay.core.events import Failed, Finished
from forebay.core.request import InferenceRequest, TaskId
from forebay.engine.engine import Engine
from forebay.engine.gpu.execution import GpuExecution
from forebay.engine.gpu.ops import TorchOps
from forebay.engine.limits import EngineLimits
from forebay.models.quantization import Quantization
from tests.checkpoints import TINY, write_checkpoint
from tests.reference import Picture, contents, picture, question

LIMITS = EngineLimits(max_running=4, token_budget=24, kv_tokens=256, kv_block=8)
"""So few tokens a step that a prompt takes several, and so few blocks that all are used again."""

POISON = "Z"
SHOWN = picture(60, 90)
Asked = dict[str, tuple[InferenceRequest, list[Picture]]]
HEALTHY: Asked = {
    "text": (question("what is it? " * 3, max_tokens=12), []),
    "picture": (question("where? ", [SHOWN], max_tokens=9), [SHOWN]),
    "drawn": (question("what?", max_tokens=7, temperature=1.2, top_p=0.8, seed=3), []),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = replace(TINY, stop_tokens=())
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), shape, seed=4)


@pytest.fixture(params=["cpu", "gpu's way", "int8"])
def engine(folder: Path, request: pytest.FixtureRequest) -> Engine:
    kind = Quantization.INT8 if request.param == "int8" else Quantization.NONE
    engine = Engine.from_folder(folder, limits=LIMITS, device="cpu", quantization=kind)
    if request.param == "gpu's way":
        one = engine._runner
        gpu = GpuExecution.build(one.model, one.cache, TorchOps(), most_rows=4, longest=256)
        engine._runner = replace(one, gpu=gpu)
    return engine


def poisoned(engine: Engine, value: float = math.nan) -> Engine:
    """Make one token of the vocabulary a number that nothing can be computed with."""
    table = engine._runner.model.model.language_model.embed_tokens
    token = engine._preparer.tokenizer.token_id(POISON)
    assert token is not None
    rows = table.scale if hasattr(table, "scale") else table.weight
    with torch.inference_mode():
        rows[token] = value
    return engine


def ends(engine: Engine, asked: Asked) -> dict[str, Finished | Failed]:
    for name, (request, pictures) in asked.items():
        engine.add(engine.prepare(TaskId(name), request, contents(pictures)))
    found: dict[str, Finished | Failed] = {}
    for _ in range(500):
        if not engine.has_work:
            engine.check_integrity()
            return found
        events = engine.step().events
        found |= {str(e.task_id): e for e in events if isinstance(e, Finished | Failed)}
    raise AssertionError("the engine did not come to an end")


def texts(found: dict[str, Finished | Failed]) -> dict[str, str]:
    return {name: end.text for name, end in found.items() if isinstance(end, Finished)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}, {"n": 2, "temperature": 0.7}],
    ids=str,
)
def test_a_task_without_a_finite_logit_fails_and_the_others_are_answered(
    engine: Engine, value: float, sampling: dict[str, float]
) -> None:
    expected = texts(ends(engine, HEALTHY))
    assert not any(POISON in text for text in expected.values())
    bad = question(f"what is {POISON}?", max_tokens=5, **sampling)
    found = ends(poisoned(engine, value), {"bad": (bad, []), **HEALTHY})
    end = found["bad"]
    assert isinstance(end, Failed)
    assert end.code == "inference_failed"
    assert "finite" in end.message
    assert texts(found) == expected


def test_what_a_block_of_the_kv_cache_held_before_is_nobody_s_business(engine: Engine) -> None:
    expected = texts(ends(engine, HEALTHY))
    for cached in (engine._runner.cache.keys, engine._runner.cache.values):
        cached[:, : engine._pool.total] = math.nan
    engine._pool.__init__(engine._pool.total, engine._pool.block_size)  # nothing is known any more
    assert texts(ends(engine, HEALTHY)) == expected


def test_a_poisoned_prompt_that_is_cancelled_half_read_leaves_nothing_behind(
    engine: Engine,
) -> None:
    expected = texts(ends(engine, HEALTHY))
    bad = question(f"{POISON} " * 60, max_tokens=5)
    engine.add(poisoned(engine).prepare(TaskId("bad"), bad, {}))
    engine.step()
    assert engine.abort(TaskId("bad"))
    found = ends(engine, {f"{at} {name}": one for at in range(4) for name, one in HEALTHY.items()})
    assert texts(found) == {
        f"{at} {name}": text for at in range(4) for name, text in expected.items()
    }
