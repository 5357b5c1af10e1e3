"""What the page of existing clients tells a reader to type and to expect is so."""

from __future__ import annotations

import json
import re
import shutil
import time
import tomllib
from pathlib import Path

import pytest

from forebay.admission.header import fitted_size
from forebay.api.review.template import PromptTemplate
from forebay.config import PACKAGE_FOLDER
from forebay.core.image_grid import GridRules, visual_tokens
from scripts.running_stack import RunningStack
from tests.browser.reader import DOCS, LIMIT_S, Reader, needs_curl

PAGES = ["clients.md", "clients.zh-CN.md"]
DEMO = PACKAGE_FOLDER / "demo_model" / "preprocessor_config.json"


@pytest.fixture
def reader(stack: RunningStack, samples: list[dict[str, str]], tmp_path: Path) -> Reader:
    found = next(one for one in samples if one["skill"] == "price" and one["file"].endswith(".jpg"))
    shutil.copy(PACKAGE_FOLDER / "samples" / found["file"], tmp_path / "picture.jpg")
    return Reader("clients.md", stack, tmp_path)


@needs_curl
def test_every_command_of_the_page_does_what_the_page_says(reader: Reader) -> None:
    assert len(reader.commands) == 8
    submitted = json.loads(reader.types("/predict"))
    assert submitted["status"] == "submitted"
    reader.task = submitted["task_id"]
    answer = polled(reader)
    in_form, as_file = (json.loads(reader.types(one)) for one in ("/v1/infer -F", "--data-binary"))
    assert answer["response"] == in_form["response"] == as_file["response"]
    assert "x-forebay-cache: hit" in reader.types("--data-binary", "-D -").lower()
    review = json.loads(reader.types("/v1/multimodal"))
    assert review["result"] in ("approve", "reject", "review")
    assert 0 <= review["confidence"] <= 1
    chat = json.loads(reader.types("/v1/chat"))
    assert chat["choices"][0]["message"]["role"] == "assistant"
    assert json.loads(reader.types("/health")) == {"status": "ok", "model_loaded": True}


def polled(reader: Reader) -> dict[str, str]:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        answer: dict[str, str] = json.loads(reader.types("/result"))
        if answer["status"] != "pending":
            return answer
        time.sleep(0.2)
    raise AssertionError("no answer")


@needs_curl
@pytest.mark.parametrize("page", PAGES)
def test_the_responses_that_the_page_shows_have_the_fields_of_real_ones(
    reader: Reader, page: str
) -> None:
    infer, review = re.findall(r"^```json\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    assert list(json.loads(infer)) == list(json.loads(reader.types("/v1/infer -F")))
    assert list(json.loads(review)) == list(json.loads(reader.types("/v1/multimodal")))


@pytest.mark.parametrize("page", PAGES)
def test_the_template_that_the_page_shows_can_be_used(page: str) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    template = PromptTemplate.from_dict(tomllib.loads(block))
    assert template.matches("Is this safe for children?")
    assert template.matches("图片安全吗?")
    assert not template.matches("What is the price?")


@pytest.mark.parametrize("page", PAGES)
def test_the_visual_tokens_that_the_page_states_are_the_models_own(page: str) -> None:
    glm, demo = GridRules(), GridRules.from_preprocessor(json.loads(DEMO.read_text("utf-8")))
    rows = re.findall(r"^\| (\d+) x (\d+).*?\| (\d+) \| (\d+) \|$", text_of(page), re.MULTILINE)
    assert len(rows) == 4
    for width, height, *told in ([int(one) for one in row] for row in rows):
        stored = fitted_size(width, height, 1024)
        assert told == [visual_tokens(stored[1], stored[0], rules) for rules in (glm, demo)]


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")
