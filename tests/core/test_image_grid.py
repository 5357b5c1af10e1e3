"""A picture's cost follows from its size, exactly as the reference's image processor resizes."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize as reference

from forebay.core.image_grid import GridRules, patch_grid, smart_resize, visual_tokens

sides = st.integers(min_value=1, max_value=6000)
budgets = st.tuples(
    st.integers(min_value=28 * 28, max_value=400_000),
    st.integers(min_value=400_001, max_value=12_000_000),
)


@given(height=sides, width=sides, budget=budgets)
@example(height=28, width=5600, budget=(12_544, 500_000))
@example(height=1, width=1, budget=(12_544, 500_000))
def test_resizing_equals_the_reference(height: int, width: int, budget: tuple[int, int]):
    rules = GridRules(min_pixels=budget[0], max_pixels=budget[1])
    try:
        expected = reference(
            2, height, width, factor=28, min_pixels=budget[0], max_pixels=budget[1]
        )
    except ValueError:
        with pytest.raises(ValueError, match="at most 200 times"):
            smart_resize(height, width, rules)
        return
    assert smart_resize(height, width, rules) == expected


@given(height=st.integers(28, 6000), width=st.integers(28, 6000))
def test_tokens_are_whole_and_bounded_by_the_rules(height: int, width: int):
    assume(max(height, width) <= 200 * min(height, width))
    rules = GridRules(max_pixels=2_000_000)
    rows, columns = patch_grid(height, width, rules)
    tokens = visual_tokens(height, width, rules)
    assert rows % 2 == columns % 2 == 0
    assert tokens == rows * columns // 4
    narrow = max(rows, columns) * 28  # one side cannot shrink below one token
    assert tokens * 28 * 28 * 2 <= max(rules.max_pixels, narrow * 28 * 2)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="at least one pixel"):
        visual_tokens(0, 10, GridRules())


def test_rules_are_read_from_a_preprocessor_config():
    raw = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 1000, "longest_edge": 9000}}
    assert GridRules.from_preprocessor(raw) == GridRules(16, 2, 2, 1000, 9000)
    assert GridRules.from_preprocessor({}) == GridRules()
