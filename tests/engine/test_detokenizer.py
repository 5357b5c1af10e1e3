from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forebay.engine.detokenizer import Detokenizer
from tests.checkpoints import build_tokenizer

TOKENIZER = build_tokenizer()
# A text may spell a control token; here it is ordinary text, as what a client types is.
TOKENIZER.encode_special_tokens = True


def decode(ids) -> str:
    return TOKENIZER.decode(list(ids), skip_special_tokens=True)


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def run(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[Detokenizer, list[str]]:
    detokenizer = Detokenizer(decode, stop)
    deltas = []
    for token_id in ids:
        deltas.append(detokenizer.push(token_id))
        if detokenizer.stopped:
            break
    deltas.append(detokenizer.finish())
    return detokenizer, deltas


def test_a_chinese_character_of_three_tokens_comes_out_whole() -> None:
    ids = encode("价格")
    assert len(ids) == 6
    _, deltas = run(ids)
    assert deltas == ["", "", "价", "", "", "格", ""]


@given(st.text(max_size=40))
@example("<sop>")
def test_deltas_joined_are_the_text_and_none_has_half_a_character(text: str) -> None:
    detokenizer, deltas = run(encode(text))
    assert "".join(deltas) == detokenizer.text == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in delta for delta in deltas)


@given(st.lists(st.integers(0, 255), max_size=60))
def test_noise_comes_out_too_and_nothing_is_held_for_ever(ids: list[int]) -> None:
    detokenizer, deltas = run(ids)
    assert "".join(deltas) == detokenizer.text
    held = 0
    for delta in deltas:
        held = 0 if delta else held + 1
        assert held <= 17


def test_an_answer_cut_inside_a_character_ends_with_the_replacement_mark() -> None:
    _, deltas = run(encode("a价")[:-1])
    assert "".join(deltas) == "a\ufffd"


@given(st.text("ab ", max_size=20), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
def test_a_stop_string_ends_the_text_before_it_and_is_never_shown(
    text: str, stop: list[str]
) -> None:
    ids = encode(text)
    detokenizer, deltas = run(ids, tuple(stop))
    grown = (decode(ids[:end]) for end in range(1, len(ids) + 1))
    stopped = next((so_far for so_far in grown if any(word in so_far for word in stop)), None)
    shown = text
    if stopped is not None:
        # the first token that completes any of them ends the answer
        shown = stopped[: min(stopped.find(word) for word in stop if word in stopped)]
    assert "".join(deltas) == detokenizer.text == shown
    assert detokenizer.stopped == (stopped is not None)
    assert not any(word in shown for word in stop)


def test_text_that_only_began_like_a_stop_string_is_shown_in_the_end() -> None:
    _, deltas = run(encode("x EN"), ("END",))
    assert deltas[-1] == "EN"


@pytest.mark.parametrize("stop", [(), ("",)])
def test_no_stop_string_holds_nothing_back(stop: tuple[str, ...]) -> None:
    _, deltas = run(encode("ab"), stop)
    assert "".join(deltas[:-1]) == "ab"
