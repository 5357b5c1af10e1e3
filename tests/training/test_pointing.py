"""What the decoder's heads are told to look at is where the answer is."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from training.data import Maker, the_tokenizer
from training.lists import GLYPH_INDEX, SHAPES, Language
from training.pointing import COUNTING_HEAD, POINTING_HEAD, READING, SEEING, Look, word_of
from training.questions import colour_question, count_question
from training.scene import Turn

GLYPH_SKILLS = ("price", "label")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_name_of_the_shape_is_found_in_every_question(language: Language) -> None:
    rng = Random(3)
    for about in (*SHAPES, None):
        for _ in range(20):
            asked = count_question(rng, language, about)
            if about is not None and rng.random() < 0.5:
                asked = colour_question(rng, language, about)
            start, end = word_of(Turn(asked, "", "count", language, about))
            names = SHAPES[about] if about is not None else ("shapes", "图形")
            assert asked[start:end].lower() in names


def test_each_row_s_pointers_lie_on_its_question_or_its_picture() -> None:
    maker = Maker(Random(9), 24)
    image = the_tokenizer().token_to_id("<|image|>")
    layers = set()
    for progress in (0.2, 0.9, 0.95):
        batch = maker.make(progress)
        look = batch.look
        for at, row in enumerate(look.rows.tolist()):
            looked_at = batch.ids[row][look.keys[at]]
            layer = int(look.layers[at])
            layers.add(layer)
            assert len(looked_at) > 0
            assert bool((looked_at == image).all()) == (layer == SEEING)
            assert int(look.keys[at].nonzero().max()) <= int(look.queries[at])
            assert 0 < float(look.shares[at]) <= 1
    assert layers == {READING, SEEING}


def test_a_glyph_s_pointer_is_on_the_tokens_that_show_it() -> None:
    batch = Maker(Random(4), 16).make(0.97)
    image = the_tokenizer().token_to_id("<|image|>")
    found = 0
    for at, row in enumerate(batch.look.rows.tolist()):
        if batch.skills[row] not in GLYPH_SKILLS or batch.look.layers[at] != SEEING:
            continue
        first = int((batch.ids[row] == image).nonzero()[0])
        tokens = (batch.look.keys[at].nonzero().squeeze(1) - first).tolist()
        glyphs = batch.labels["glyph"][batch.spoken[_asking(batch.ids, row, image)]]
        target = the_tokenizer().decode([int(batch.targets[row, batch.look.queries[at]])])
        if len(target) == 1:
            found += 1
            assert any((glyphs[token] == GLYPH_INDEX[target]).any() for token in tokens)
    assert found > 5


def _asking(ids: torch.Tensor, row: int, image: int) -> int:
    """Return which of the rows with a picture this one is."""
    return int((ids[: row + 1] == image).any(1).sum()) - 1


def _look(share: float) -> Look:
    keys = torch.zeros(1, 6, dtype=torch.bool)
    keys[0, [1, 2]] = True
    one = torch.zeros(1, dtype=torch.long)
    return Look(one, one + 4, keys, torch.tensor([share]), one + SEEING)


@pytest.mark.parametrize(("share", "head"), [(1.0, POINTING_HEAD), (0.5, COUNTING_HEAD)])
def test_the_loss_is_least_where_the_attention_is_right(share: float, head: int) -> None:
    losses = []
    for strength in np.linspace(-6, 6, 25):
        q, k = torch.zeros(1, 8, 6, 4), torch.zeros(1, 8, 6, 4)
        q[0, head, 4, 0] = 2.0
        k[0, head, [1, 2], 0] = float(strength)  # the score is this strength
        found = _look(share).loss(SEEING, q, k)
        assert found is not None
        mass = 2 * np.exp(strength) / (2 * np.exp(strength) + 3)  # three other keys up to the query
        losses.append((float(found), abs(mass - share)))
    best = min(losses)
    assert best[1] == min(miss for _, miss in losses)


def test_a_layer_without_pointers_has_no_loss() -> None:
    q = torch.zeros(1, 8, 6, 4)
    assert _look(1.0).loss(READING, q, q) is None
