"""The vision tower under two threads, and its attention by head through oneDNN."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from forebay.models.glm4v import layers, vision
from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.vision import KEPT_LAYOUTS, VisionTower
from tests.checkpoints import TINY, build_tokenizer, config_dict, random_weights

CPU = torch.device("cpu")


@pytest.fixture
def tower() -> VisionTower:
    config = config_dict(TINY, build_tokenizer())
    tower = VisionTower(Glm4vConfig.from_dict(config).vision)
    prefix = "model.visual."
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in random_weights(config, 0).items()
        if name.startswith(prefix)
    }
    tower.load_state_dict(weights)
    return tower.requires_grad_(False)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_two_threads_keep_layouts_of_many_grids(
    tower: VisionTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tower._laid_out([(2, 2)], CPU)
    monkeypatch.setattr(tower, "_laid_out", lambda *_: one)
    wrong: list[Exception] = []

    @torch.inference_mode()
    def work(columns: int) -> None:
        try:
            for at in range(40_000):
                tower._layout([(at % 37, columns)], CPU)
        except Exception as error:  # noqa: BLE001  (a thread's own would go to nobody)
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(columns,)) for columns in (2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(tower._layouts) == KEPT_LAYOUTS


def test_large_pictures_say_by_head_what_they_say_otherwise(
    tower: VisionTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bounds lowered, so that small shapes take the ways of large ones."""
    grids = [(4, 8), (6, 6), (4, 8), (2, 2), (10, 4)]
    pixels = torch.randn(sum(a * b for a, b in grids), 588, generator=torch.Generator())
    with torch.inference_mode():
        expected = tower(pixels, grids)
        monkeypatch.setattr(vision, "BY_HEAD_FROM", 8)
        monkeypatch.setattr(vision, "BY_HEAD_ROWS", 7)
        monkeypatch.setattr(vision, "PATCHES_A_PASS", 64)
        monkeypatch.setattr(layers, "ONEDNN_FROM", 1)
        got = tower(pixels, grids)
    assert (got - expected).norm() <= 1e-5 * expected.norm()
