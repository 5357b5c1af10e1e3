from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.models.tokenizer import TextTokenizer
from tests.checkpoints import SPECIAL_TOKENS, build_tokenizer, write_checkpoint

TOKENIZER = TextTokenizer.of(build_tokenizer())
CONTROL_IDS = {TOKENIZER.token_id(token) for token in SPECIAL_TOKENS}

hostile = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "image", "\ue0f0", "\ue0f1", "<|user"]),
    ),
    max_size=8,
).map("".join)


@given(hostile)
def test_no_text_of_a_client_becomes_a_control_token(text: str) -> None:
    assert not CONTROL_IDS.intersection(TOKENIZER.encode(TOKENIZER.guard(text)))


@given(hostile)
def test_guarded_text_still_reads_as_it_was_written(text: str) -> None:
    plain = text.replace("\ue0f0", "").replace("\ue0f1", "")
    assert TOKENIZER.decode(TOKENIZER.encode(TOKENIZER.guard(text))) == plain


@given(hostile)
def test_the_template_s_own_tokens_keep_their_meaning_beside_guarded_text(text: str) -> None:
    ids = TOKENIZER.encode(f"<|user|>{TOKENIZER.guard(text)}<|assistant|>")
    assert ids[0] == TOKENIZER.token_id("<|user|>")
    assert ids[-1] == TOKENIZER.token_id("<|assistant|>")
    assert not CONTROL_IDS.intersection(ids[1:-1])


@pytest.mark.parametrize("text", ["what is 12?", "图中价格是多少?", ""])
def test_harmless_text_is_not_touched(text: str) -> None:
    assert TOKENIZER.guard(text) == text


def test_a_saved_truncation_or_padding_is_switched_off(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    strict = build_tokenizer()
    strict.enable_truncation(4)
    strict.enable_padding(length=8)
    strict.save(str(folder / "tokenizer.json"))
    text = "what is the price of this?"
    assert TextTokenizer.from_folder(folder).encode(text) == TOKENIZER.encode(text)
