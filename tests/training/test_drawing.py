"""Pictures depend on their seed alone, and the dense labels name every glyph."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from training.ask import LANGUAGES, ask, compose
from training.draw import draw
from training.evaluate import SKILLS, case
from training.fonts import Family, MissingFontError, families
from training.labels import label
from training.lists import GLYPHS, REASONS
from training.scene import Skill
from training.scenes import review, shapes, tags
from training.scenes.common import Canvas


@pytest.mark.parametrize("skill", SKILLS)
def test_the_same_seed_draws_the_same_picture_question_and_answer(skill: Skill) -> None:
    first, second = (case(77, skill, "en") for _ in range(2))
    assert first.turn == second.turn
    assert np.array_equal(np.asarray(first.picture), np.asarray(second.picture))
    assert case(78, skill, "en").picture.tobytes() != first.picture.tobytes()


@pytest.mark.parametrize("skill", SKILLS)
def test_pictures_keep_to_the_stated_sizes(skill: Skill) -> None:
    for seed in range(12):
        width, height = case(seed, skill, "zh").picture.size
        assert min(width, height) >= 112
        assert max(width, height) <= 672


def test_labels_name_every_glyph_of_a_line_in_its_order() -> None:
    named = drawn_glyphs = 0
    for seed in range(60):
        canvas = Canvas(Random(seed), 168, 140)
        scene = tags.compose(canvas, "label" if seed % 2 else "price")
        drawn = draw(scene)
        found = label(scene, drawn.lines, 168, 140)
        pairs = set(zip(found.glyph.ravel().tolist(), found.order.ravel().tolist(), strict=True))
        for line in drawn.lines:
            for order, glyph in enumerate(line.item.text):
                drawn_glyphs += 1
                named += (GLYPHS.index(glyph), min(order, 11)) in pairs
    assert named / drawn_glyphs > 0.98


def test_labels_count_shapes_and_mark_their_centres() -> None:
    for seed in range(20):
        scene = shapes.compose(Canvas(Random(seed), 168, 168), "count")
        found = label(scene, (), 168, 168)
        assert found.counts.sum() == sum(shapes.counts(scene).values())
        assert (found.centre > 0).sum() >= found.counts.sum() - 1  # two may share a patch


def test_every_question_has_its_answer_in_the_scene() -> None:
    for seed in range(200):
        rng = Random(seed)
        skill: Skill = rng.choice(SKILLS)
        scene = compose(Canvas(rng, 140, 140), skill)
        for language in LANGUAGES:
            turn = ask(rng, scene, skill, language)
            assert turn.answer
            if skill == "count":
                assert 0 <= int(turn.answer) <= 9
            if skill == "price":
                assert turn.answer == scene.price


@pytest.mark.parametrize("reason", REASONS)
def test_each_verdict_can_be_drawn(reason: str) -> None:
    scene = review.compose(Canvas(Random(3), 150, 150), reason)
    assert scene.reason == reason
    assert draw(scene).picture.size == (150, 150)


def test_held_out_fonts_are_never_among_the_seen() -> None:
    for cjk in (False, True):
        seen = {face.path for family in families(cjk, False) for face in family}
        held = {face.path for family in families(cjk, True) for face in family}
        assert held
        assert seen
        assert not held & seen


def test_a_missing_font_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"Lost": Family("fonts-lost", ("truetype/lost/Lost.ttf",))}
    monkeypatch.setattr("training.fonts.FAMILIES", lost)
    families.cache_clear()
    try:
        with pytest.raises(MissingFontError, match="apt-get install -y fonts-lost"):
            families(False, False)
    finally:
        families.cache_clear()
