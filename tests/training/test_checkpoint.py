"""The shipped checkpoint answers fresh pictures. Floors lie under what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.decode import Reader
from training.evaluate import case, score, talk_score
from training.scene import Skill

# Three standard errors of 32 pictures under what 400 measured.
FLOORS: dict[Skill, float] = {
    "price": 0.82,
    "label": 0.75,
    "colour": 0.88,
    "count": 0.69,
    "review": 0.9,
}
SEED = 3 * 10**9


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load(Path("forebay/demo_model"))


@pytest.mark.parametrize("skill", FLOORS)
def test_the_shipped_model_answers_above_its_floor(reader: Reader, skill: Skill) -> None:
    cases = [case(SEED + at, skill, "en" if at % 2 else "zh") for at in range(32)]
    assert score(reader, cases) >= FLOORS[skill]


def test_the_shipped_model_talks_without_a_picture(reader: Reader) -> None:
    assert talk_score(reader) >= 0.95
