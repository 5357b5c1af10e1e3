"""The sample requests are what their command draws, and their list is sound."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from PIL import Image

from training.evaluate import SKILLS, case
from training.samples import SEED

FOLDER = Path("forebay/samples")


def test_the_list_names_fifty_pictures_of_every_skill_and_both_languages() -> None:
    entries = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))
    assert len(entries) == 50
    counted = Counter((e["skill"], e["language"]) for e in entries)
    assert counted == {(skill, language): 5 for skill in SKILLS for language in ("en", "zh")}
    sizes = []
    for entry in entries:
        with Image.open(FOLDER / entry["file"]) as picture:
            sizes.append(picture.size)
    assert all(min(size) >= 112 and max(size) <= 672 for size in sizes)
    assert sum((FOLDER / e["file"]).stat().st_size for e in entries) <= 1.5 * 2**20


def test_samples_are_drawn_in_order_from_their_seed_and_none_is_left_out() -> None:
    entries = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))
    for number, entry in list(enumerate(entries))[::7]:
        drawn = case(SEED + number, entry["skill"], entry["language"])
        assert (drawn.turn.question, drawn.turn.answer) == (entry["question"], entry["answer"])
