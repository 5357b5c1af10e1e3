"""What the settings of memory come to in the engine."""

from __future__ import annotations

import pytest

from forebay.config import SettingsError, load_settings
from forebay.core.image_grid import GridRules, visual_tokens
from forebay.worker.local import engine_limits


@pytest.mark.parametrize("side", [28, 500, 1024, 2000])
def test_no_stored_picture_is_larger_than_what_memory_is_measured_with(side: int) -> None:
    limits = engine_limits(load_settings(image_side=side))
    rules = GridRules(min_pixels=1)
    for other in (side, side // 2 + 1, side // 3 + 1, side // 20 + 1):
        assert visual_tokens(side, other, rules) <= limits.largest_image
    assert limits.largest_image <= max(200, visual_tokens(side + 56, side + 56, rules))


def test_the_share_and_the_context_reach_the_engine() -> None:
    limits = engine_limits(load_settings(memory_share=0.5, context_tokens=900))
    assert (limits.memory_share, limits.context_tokens) == (0.5, 900)
    with pytest.raises(SettingsError, match="memory_share"):
        load_settings(memory_share=1.5)


def test_the_budget_of_a_step_suits_the_device_unless_it_is_set() -> None:
    assert engine_limits(load_settings(device="cpu")).token_budget == 512
    assert engine_limits(load_settings(device="cuda")).token_budget == 2048
    assert engine_limits(load_settings(device="cpu", token_budget=64)).token_budget == 64
    assert engine_limits(load_settings(device="cpu", max_running=600)).token_budget == 600
