from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forebay.engine.detokenizer import Detokenizer
from forebay.models.tokenizer import TextTokenizer
from tests.checkpoints import build_tokenizer

TOKENIZER = TextTokenizer.of(build_tokenizer())
VOCABULARY = TOKENIZER.tokenizer.get_vocab_size()


def encode(text: str) -> list[int]:
    # what a client types may spell a control token and is ordinary text all the same
    return TOKENIZER.encode(TOKENIZER.guard(text))


decode = TOKENIZER.decode


def run(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[Detokenizer, list[str]]:
    detokenizer = Detokenizer(TOKENIZER.shown_bytes, stop)
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


# the two characters by which the tokenizer marks clients' control tokens come out of no text
TEXTS = st.text(st.characters(exclude_characters="\ue0f0\ue0f1", exclude_categories=("Cs",)))
FAMILY = "👩\u200d👩\u200d👧\u200d👦"


@given(TEXTS)
@example("<sop>")
@example(f"a{FAMILY}价🇨🇳e\u0301")
def test_deltas_joined_are_the_text_and_none_has_half_a_character(text: str) -> None:
    detokenizer, deltas = run(encode(text))
    assert "".join(deltas) == detokenizer.text == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in delta for delta in deltas)


@settings(max_examples=300)
@given(st.lists(st.integers(0, VOCABULARY + 5), max_size=60))
@example([*encode("价")[:2], *encode("价")])
@example([encode("价")[0], *encode(FAMILY)[:3], 270, *encode("格")])
def test_any_tokens_at_all_give_what_the_tokenizer_decodes(ids: list[int]) -> None:
    detokenizer, deltas = run(ids)
    assert "".join(deltas) == detokenizer.text == decode(ids)


@given(st.lists(st.integers(0, VOCABULARY - 1), max_size=60))
@example([169, 94])  # half of a surrogate: the decoder waits, though nothing can make it whole
def test_never_more_than_the_beginning_of_one_character_is_held_back(ids: list[int]) -> None:
    detokenizer = Detokenizer(TOKENIZER.shown_bytes)
    sent = b"".join(TOKENIZER.shown_bytes(token_id) for token_id in ids)
    for token_id in ids:
        detokenizer.push(token_id)
    whole, shown = sent.decode(errors="replace"), detokenizer.text
    assert whole.startswith(shown)
    assert whole[len(shown) :] in ("", "\ufffd", "\ufffd" * 2, "\ufffd" * 3)


def test_an_answer_cut_inside_a_character_ends_with_the_replacement_mark() -> None:
    _, deltas = run(encode("a价")[:-1])
    assert "".join(deltas) == "a\ufffd"


@given(
    st.text("a价格😀", max_size=15),
    st.lists(st.text("a价😀", min_size=1, max_size=3), max_size=2),
)
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


def test_a_stop_string_may_begin_before_the_text_may_stop() -> None:
    detokenizer = Detokenizer(TOKENIZER.shown_bytes, ("价格",))
    early, late = encode("x价"), encode("格y")
    shown = [detokenizer.push(token_id, may_stop=False) for token_id in early]
    shown += [detokenizer.push(token_id) for token_id in late[:3]]
    assert ("".join(shown), detokenizer.stopped) == ("x", True)


@pytest.mark.parametrize("more", ["", "ax"])
def test_a_stop_string_let_through_is_not_found_again_while_a_longer_one_is_awaited(
    more: str,
) -> None:
    detokenizer = Detokenizer(TOKENIZER.shown_bytes, ("ab", "abac"))
    for token_id in encode("ab"):
        detokenizer.push(token_id, may_stop=False)
    assert detokenizer.text == ""
    for token_id in encode(more):
        detokenizer.push(token_id)
    detokenizer.finish()
    assert (detokenizer.text, detokenizer.stopped) == ("ab" + more, False)


def test_a_text_that_may_not_stop_yet_lets_the_stop_string_through() -> None:
    detokenizer = Detokenizer(TOKENIZER.shown_bytes, ("价",))
    for token_id in encode("价"):
        detokenizer.push(token_id, may_stop=False)
    assert (detokenizer.text, detokenizer.stopped) == ("价", False)
    for token_id in encode("a价"):
        detokenizer.push(token_id)
    assert (detokenizer.text, detokenizer.stopped) == ("价a", True)
