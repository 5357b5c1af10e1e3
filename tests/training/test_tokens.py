"""The tokenizer gives back any text, and reading is spelled glyph by glyph."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from training.data import IGNORE, conversation, encode, the_tokenizer
from training.decode import prompt
from training.lists import HANZI_WORDS, WORDS
from training.scene import Turn
from training.tokenizer import CHAT_TEMPLATE, VOCABULARY


@given(st.text(max_size=60))
def test_any_text_comes_back(text: str) -> None:
    assert the_tokenizer().decode(list(encode(text)), skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["¥12,345.50", "€0.9", *WORDS[:5], *HANZI_WORDS[:10], "Z9Q", "Milk"]
)
def test_what_is_read_has_one_token_a_glyph(text: str) -> None:
    assert len(encode(text)) == len(text)


def test_the_vocabulary_fits_the_embedding_table() -> None:
    assert the_tokenizer().get_vocab_size() <= VOCABULARY


def _render(messages: list[dict[str, object]]) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(CHAT_TEMPLATE)
    return template.render(messages=messages, add_generation_prompt=True)


@pytest.mark.parametrize(
    "part", [{"type": "image"}, {"type": "image_url", "image_url": {"url": ""}}]
)
def test_the_chat_template_writes_the_prompt_of_training(part: dict[str, object]) -> None:
    text = {"type": "text", "text": "What is the price?"}
    rendered = _render([{"role": "user", "content": [part, text]}])
    assert rendered == prompt("What is the price?", 1)
    assert _render([{"role": "user", "content": "hello"}]) == prompt("hello", 0)


def test_the_chat_template_keeps_several_turns_apart() -> None:
    rendered = _render(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
            {"role": "user", "content": "你好"},
        ]
    )
    picture = "<|begin_of_image|><|image|><|end_of_image|>"
    assert rendered == (
        f"[gMASK]<sop><|system|>\nBe brief.<|user|>\n{picture}{picture}"
        "<|assistant|>\nred<|user|>\n你好<|assistant|>\n"
    )


def test_only_answers_are_learned() -> None:
    turn = Turn("Price", "¥5", "price", "en")
    row = conversation(Random(2), [turn], 4)
    ids, targets = row.ids, row.targets
    learned = [t for t in targets if t != IGNORE]
    assert learned == [*encode("¥5"), *encode("<|user|>")]
    assert len(ids) == len(targets)
    for at, target in enumerate(targets[:-1]):
        assert target in (IGNORE, ids[at + 1])
