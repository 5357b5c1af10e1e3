"""Pictures encoded in the step and beside it, over a vision tower that only notes its calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from forebay.engine.pictures import LIGHT_WORK, Encoded, PicturesBeside, PicturesInStep
from forebay.engine.prepared import PreparedImage

LIMIT_S = 10.0
WORK = LIGHT_WORK + 1


class Tower:
    """Notes who asks for what; pictures named ``slow...`` wait until they are let go."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[bool, int]] = {}
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, images: Mapping[str, PreparedImage]) -> dict[str, Tensor]:
        for key in images:
            here = threading.current_thread() is threading.main_thread()
            self.calls[key] = here, torch.get_num_threads()
            if key == "bad":
                raise ValueError("no such picture")
            if key.startswith("slow"):
                self.begun.set()
                assert self.go.wait(LIMIT_S)
        return {key: torch.tensor([len(key)]) for key in images}


def shown(*keys: str) -> dict[str, PreparedImage]:
    return {key: PreparedImage(np.zeros((4, 3), np.float32), (2, 2)) for key in keys}


def everything(key: str) -> bool:
    return bool(key)


@pytest.fixture
def tower() -> Iterator[Tower]:
    before = torch.get_num_threads()
    tower = Tower()
    yield tower
    tower.go.set()
    torch.set_num_threads(before)


def until(pictures: PicturesBeside, *keys: str) -> dict[str, Tensor | None]:
    """Collect, as steps without other work do, until all ``keys`` have come."""
    found: dict[str, Tensor | None] = {}
    for _ in range(100):
        found.update(pictures.collect(everything).tokens)
        if found.keys() >= set(keys):
            return found
        pictures.start({}, work=0, lends=False)
    raise AssertionError(f"only {sorted(found)} of {sorted(keys)} came")


def test_in_the_step_all_pictures_are_encoded_at_once(tower: Tower) -> None:
    pictures = PicturesInStep(tower)
    pictures.start(shown("a", "bb"), work=WORK, lends=False)
    assert pictures.collect(everything).tokens == {"a": torch.tensor([1]), "bb": torch.tensor([2])}
    assert pictures.collect(everything) == Encoded({})


def test_a_lone_picture_is_encoded_by_the_step_with_all_threads(tower: Tower) -> None:
    pictures = PicturesBeside(tower, 4)
    torch.set_num_threads(4)
    pictures.start(shown("a"), work=0, lends=True)
    assert pictures.collect(everything).tokens == {"a": torch.tensor([1])}
    assert tower.calls == {"a": (True, 4)}


def test_beside_other_work_a_picture_takes_half_of_the_threads(tower: Tower) -> None:
    pictures = PicturesBeside(tower, 4)
    pictures.start(shown("slow"), work=WORK, lends=True)
    assert tower.begun.wait(LIMIT_S)
    assert tower.calls == {"slow": (False, 2)}
    assert torch.get_num_threads() == 2  # the step's own
    assert pictures.collect(everything).tokens == {}  # the step does not wait
    tower.go.set()
    assert until(pictures, "slow") == {"slow": torch.tensor([4])}
    pictures.start({}, work=WORK, lends=False)
    assert torch.get_num_threads() == 4


def test_a_step_without_other_work_encodes_the_last_one_itself(tower: Tower) -> None:
    pictures = PicturesBeside(tower, 2)
    pictures.start(shown("slow", "b"), work=0, lends=True)
    assert tower.calls["b"] == (True, 1)
    tower.go.set()
    assert until(pictures, "slow", "b").keys() == {"slow", "b"}
    assert tower.calls["slow"] == (False, 1)


def test_a_step_with_time_takes_a_picture_that_would_wait_but_not_the_only_one(
    tower: Tower,
) -> None:
    pictures = PicturesBeside(tower, 2)
    pictures.start(shown("slow", "b", "c"), work=WORK, lends=False)
    assert tower.begun.wait(LIMIT_S)
    assert tower.calls.keys() == {"slow"}
    pictures.start({}, work=WORK, lends=True)
    assert tower.calls["c"] == (True, 1)
    pictures.start({}, work=WORK, lends=True)
    assert tower.calls["b"] == (True, 1)
    pictures.start({}, work=WORK, lends=True)  # what is under way stays where it is
    tower.go.set()
    assert until(pictures, "slow", "b", "c").keys() == {"slow", "b", "c"}
    assert not tower.calls["slow"][0]


def test_a_picture_that_nobody_wants_any_more_is_dropped_unless_it_has_begun(tower: Tower) -> None:
    pictures = PicturesBeside(tower, 2)
    pictures.start(shown("slow", "b"), work=WORK, lends=False)
    assert tower.begun.wait(LIMIT_S)
    assert pictures.collect(lambda _: False).tokens == {"b": None}
    tower.go.set()
    assert until(pictures, "slow") == {"slow": torch.tensor([4])}
    assert "b" not in tower.calls


def test_what_goes_wrong_beside_the_step_is_raised_in_it(tower: Tower) -> None:
    pictures = PicturesBeside(tower, 2)
    pictures.start(shown("bad"), work=WORK, lends=False)
    with pytest.raises(ValueError, match="no such picture"):
        until(pictures, "bad")


def test_whoever_is_closed_encodes_no_picture_that_has_not_begun(tower: Tower) -> None:
    """Else a process that is to end would first encode all that had been asked for."""
    pictures = PicturesBeside(tower, 2)
    pictures.start(shown("slow", "b", "c"), work=WORK, lends=False)
    assert tower.begun.wait(LIMIT_S)
    pictures.close()
    tower.go.set()
    pictures._lane._thread.shutdown(wait=True)
    assert tower.calls.keys() == {"slow"}


def test_seconds_beside_the_step_are_told_once(tower: Tower) -> None:
    pictures = PicturesBeside(tower, 2)
    pictures.start(shown("a"), work=WORK, lends=False)
    spent = 0.0
    for _ in range(100):
        pictures.start({}, work=0, lends=False)
        spent = pictures.collect(everything).seconds
        if spent:
            break
    assert spent > 0
    assert pictures.collect(everything).seconds == 0


def test_a_step_of_little_work_keeps_to_one_thread(tower: Tower) -> None:
    pictures = PicturesBeside(tower, 4)
    torch.set_num_threads(4)
    pictures.start(shown("a"), work=0, lends=True)
    assert tower.calls["a"] == (True, 4)
    pictures.start({}, work=LIGHT_WORK, lends=True)
    assert torch.get_num_threads() == 1
    pictures.start({}, work=WORK, lends=True)
    assert torch.get_num_threads() == 4
