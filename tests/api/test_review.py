"""Prompt templates, what an answer says, and how sure it is: the pure parts."""

from __future__ import annotations

import math
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.review.book import PromptBook
from forebay.api.review.confidence import mean_probability, result_probability
from forebay.api.review.errors import PromptsError
from forebay.api.review.template import AnswerForm, PromptTemplate
from forebay.api.review.verdict import Verdict, read_verdict
from forebay.config import PACKAGE_FOLDER, SettingsError, load_settings
from forebay.core.errors import InvalidRequestError
from forebay.core.events import TokenLogprob
from forebay.grammars import fault_of

SHIPPED = PACKAGE_FOLDER / "prompts"
OF_DEMO = PACKAGE_FOLDER / "demo_model" / "prompts"
THREE = {one: one for one in ("approve", "reject", "review")}
JSON = AnswerForm("json", THREE, most=3, longest=40)
LINE = AnswerForm("line", {"approve": "通过", "reject": "拒绝", "review": "复核"}, 3, 40)


def raw(**changes: Any) -> dict[str, Any]:
    content = tomllib.loads((SHIPPED / "review.toml").read_text(encoding="utf-8"))
    return {**content, **changes}


@pytest.mark.parametrize("folder", [SHIPPED, OF_DEMO], ids=["package", "demo"])
@pytest.mark.parametrize(
    ("prompt", "is_review"),
    [
        ("Review this product picture: approve or reject", True),
        ("should this picture be approved?", True),
        ("请审核这张商品图", True),
        ("这张商品图能通过吗?", True),
        ("What is the price?", False),
        ("What does the customer review say?", False),
        ("图中价格是多少?", False),
        ("你好", False),
    ],
)
def test_a_prompt_is_known_by_its_words(folder: Path, prompt: str, is_review: bool) -> None:
    found = PromptBook.from_folder(folder).template_for(prompt, None)
    assert (found is not None) == is_review


@pytest.mark.parametrize(
    ("prompt", "is_review"),
    [
        ("Please review the product. Is it compliant?", True),
        ("Could you moderate our new banner?", True),
        ("Is this product picture compliant?", True),
        ("Are these labels in compliance with the rules?", True),
        ("Does the ad on the left comply with our policy?", True),
        ("Does this photo violate any guidelines?", True),
        ("Review the product for compliance", True),
        ("Does the product review mention the price?", False),
        ("Which standard does the label say it complies with?", False),
        ("What does compliant mean on this label?", False),
        ("Check the product's price", False),
        ("Review the product name and tell me the price", False),
        ("How many products are there?", False),
    ],
)
def test_a_question_about_rules_is_a_review_for_a_model_that_takes_instructions(
    prompt: str, is_review: bool
) -> None:
    found = PromptBook.from_folder(SHIPPED).template_for(prompt, None)
    assert (found is not None) == is_review


def test_a_template_asks_in_the_prompts_own_language_and_keeps_its_words() -> None:
    template = PromptBook.from_folder(SHIPPED).templates[0]
    assert "Decide" in template.text_for("review {prompt} this")
    assert "review {prompt} this" in template.text_for("review {prompt} this")
    assert "请按上面的要求" in template.text_for("请审核")


@pytest.mark.parametrize("folder", [SHIPPED, OF_DEMO], ids=["package", "demo"])
def test_every_shipped_form_can_be_followed(folder: Path) -> None:
    for template in PromptBook.from_folder(folder).templates:
        for form in template.forms.values():
            assert fault_of(form.constraint()) is None
            assert set(form.words) == {"approve", "reject", "review"}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "none"}, "no template"),
        ({"name": "Has Blanks"}, "name"),
        ({"form": "xml"}, "form"),
        ({"pattern": []}, "pattern"),
        ({"patterns": ["(unclosed"]}, "patterns.0"),
        ({"results": ["approve"]}, "results"),
        ({"results": ["approve", "approve"]}, "begins with"),
        ({"results": ["approve", "approved"]}, "begins with"),
        ({"results": ["approve", 'a"b']}, "results.1"),
        ({"reasons": {"most": 0}}, "reasons.most"),
        ({"text": {"en": "{prompt}"}}, "text.zh"),
        ({"text": {"en": "no mark", "zh": "{prompt}"}}, "text.en"),
        ({"words": {"zh": {"maybe": "也许"}}}, "words.zh.maybe"),
        ({"words": {"fr": {}}}, "words.fr"),
    ],
)
def test_a_wrong_template_stops_the_start_by_file_and_key(
    tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    (tmp_path / "own.toml").write_text(as_toml(raw(**changes)), encoding="utf-8")
    with pytest.raises(PromptsError, match=r"own\.toml") as caught:
        PromptBook.from_folder(tmp_path)
    assert word in str(caught.value)


def as_toml(content: dict[str, Any], table: str = "") -> str:
    plain = [(name, value) for name, value in content.items() if not isinstance(value, dict)]
    lines = [f"{name} = {toml_value(value)}" for name, value in plain]
    for name, value in content.items():
        if isinstance(value, dict):
            place = f"{table}{name}"
            lines += [f"[{place}]", as_toml(value, f"{place}.")]
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def test_a_folder_must_have_templates_that_can_be_read_and_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PromptsError, match="no prompt template"):
        PromptBook.from_folder(tmp_path)
    (tmp_path / "a.toml").write_text("name = ", encoding="utf-8")
    with pytest.raises(PromptsError, match=r"a\.toml: is not TOML"):
        PromptBook.from_folder(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.toml").write_text(as_toml(raw()), encoding="utf-8")
    with pytest.raises(PromptsError, match=r"the name of a\.toml already"):
        PromptBook.from_folder(tmp_path)


def test_a_request_names_a_template_or_none() -> None:
    book = PromptBook.from_folder(SHIPPED)
    assert book.template_for("What is this?", "review") is book.templates[0]
    assert book.template_for("请审核", "none") is None
    with pytest.raises(InvalidRequestError, match="there are: review, none"):
        book.template_for("请审核", "strict")


def test_the_folder_is_the_set_one_else_the_models_else_the_packages(tmp_path: Path) -> None:
    assert load_settings().prompts_folder == OF_DEMO
    assert load_settings(model=str(tmp_path)).prompts_folder == SHIPPED
    assert load_settings(prompts_dir=tmp_path).prompts_folder == tmp_path


def test_room_for_less_than_one_body_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least max_body_bytes"):
        load_settings(max_inflight_bytes=2**20)


@pytest.mark.parametrize(
    ("text", "form", "verdict"),
    [
        ('{"result": "reject", "reasons": ["blurred", "a \\"b\\""]}', JSON,
         Verdict("reject", ("blurred", 'a "b"'))),
        ('{ "result" :\n "approve","reasons":[ ] }', JSON, Verdict("approve", ())),
        ('{"result": "reject", "reasons": ["blurred", "wat', JSON, Verdict("reject", ("blurred",))),
        ('{"result": "reject"', JSON, Verdict("reject", ())),
        ('{"result": "rej', JSON, None),
        ("", JSON, None),
        ("I cannot", JSON, None),
        ("拒绝:含水印,图片模糊", LINE, Verdict("reject", ("含水印", "图片模糊"))),
        ("通过", LINE, Verdict("approve", ())),
        ("拒", LINE, None),
    ],
)  # fmt: skip
def test_an_answer_is_read_back_as_far_as_it_is_whole(
    text: str, form: AnswerForm, verdict: Verdict | None
) -> None:
    assert read_verdict(text, form) == verdict


Distribution = Callable[[bytes], dict[bytes, float]]


def spoken(word: bytes, before: bytes, model: Distribution, tops: int) -> list[TokenLogprob]:
    """Spell ``before`` and the word byte by byte, with the likeliest alternatives of each place."""
    told, text = [], b""
    for byte in before + word:
        likely = model(text)
        ranked = sorted(((one, math.log(p)) for one, p in likely.items()), key=lambda it: -it[1])
        token = bytes([byte])
        told.append(TokenLogprob(token, math.log(likely[token]), tuple(ranked[:tops])))
        text += token
    return told


def random_model(seed: int) -> Distribution:
    """A model over all bytes whose probabilities depend on what was said."""

    def model(text: bytes) -> dict[bytes, float]:
        weights = [1 + zlib.crc32(b"%d %d %s" % (seed, byte, text)) % 997 for byte in range(256)]
        whole = sum(weights)
        return {bytes([byte]): weight / whole for byte, weight in enumerate(weights)}

    return model


@given(st.integers(0, 2**32), st.sampled_from([b"", b'{"result": "']))
def test_with_every_alternative_known_the_results_probabilities_add_up_to_one(
    seed: int, before: bytes
) -> None:
    model = random_model(seed)
    form = JSON if before else AnswerForm("line", THREE, 3, 40)
    probabilities = {
        word: result_probability(spoken(word.encode(), before, model, 256), form, word)
        for word in THREE
    }
    assert math.isclose(sum(p or 0 for p in probabilities.values()), 1)
    at = model(before)
    reject_or_review, approve = at[b"r"], at[b"a"]
    assert probabilities["approve"] == pytest.approx(approve / (approve + reject_or_review))


def test_a_result_that_is_not_among_the_likeliest_counts_as_the_last_of_them() -> None:
    told = [TokenLogprob(b"approve", math.log(0.3), ((b"other", math.log(0.6)),
                                                      (b"approve", math.log(0.3))))]  # fmt: skip
    form = AnswerForm("line", THREE, 3, 40)
    assert result_probability(told, form, "approve") == pytest.approx(0.3 / 0.9)


def test_a_token_may_reach_over_either_end_of_the_result() -> None:
    told = [
        TokenLogprob(b'{"result"', -9.0, ((b"x", -0.1),)),
        TokenLogprob(b': "re', math.log(0.5), ((b': "re', math.log(0.5)), (b': "a', math.log(0.2)),
                                              (b': "z', math.log(0.3)))),
        TokenLogprob(b'ject",', math.log(0.6), ((b'ject",', math.log(0.6)),
                                                (b"view", math.log(0.2)),
                                                (b"jected", math.log(0.1)))),
    ]  # fmt: skip
    expected = (0.5 / 0.7) * (0.6 / 0.8)
    assert result_probability(told, JSON, "reject") == pytest.approx(expected)


def test_nothing_is_claimed_where_nothing_is_known() -> None:
    assert result_probability((), JSON, "reject") is None
    assert mean_probability(()) is None
    told = [TokenLogprob(b"a", math.log(0.5)), TokenLogprob(b"b", math.log(1.0))]
    assert mean_probability(told) == pytest.approx(0.75)


def test_a_template_takes_other_results() -> None:
    words = {"results": ["safe", "nsfw"], "words": {"zh": {"safe": "安全", "nsfw": "违规"}}}
    template = PromptTemplate.from_dict(raw(name="safety", **words))
    assert list(template.form_for("Check").words.values()) == ["safe", "nsfw"]
    assert list(template.form_for("检查").words.values()) == ["安全", "违规"]
