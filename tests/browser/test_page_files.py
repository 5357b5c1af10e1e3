"""The page's files: no word missing in a language, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forebay.core.errors import all_errors

UI = Path(__file__).resolve().parents[2] / "forebay" / "ui"
HTML = (UI / "index.html").read_text(encoding="utf-8")
FILES = sorted(path for path in UI.iterdir() if path.suffix in {".js", ".css", ".html", ".svg"})


def table(language: str, start: str, end: str) -> dict[str, str]:
    """Read one object of a words file: key -> the rest of its line."""
    text = (UI / f"words.{language}.js").read_text(encoding="utf-8")
    block = text.split(start, 1)[1].split(end, 1)[0]
    return dict(re.findall(r"^    (\w+): (.+),$", block, re.MULTILINE))


def texts(language: str) -> dict[str, str]:
    return table(language, "texts: {", "\n  },")


def errors(language: str) -> dict[str, str]:
    return table(language, "errors: {", "\n  },")


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    english, chinese = texts("en"), texts("zh")
    assert english.keys() == chinese.keys()
    places = re.compile(r"\{\w+\}")
    for key, words in english.items():
        assert sorted(places.findall(words)) == sorted(places.findall(chinese[key])), key


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_error_that_a_client_can_meet_has_its_own_words(language: str) -> None:
    codes = {cls.code for cls in all_errors()} | {"network"}
    assert errors(language).keys() == codes


def test_every_text_that_the_page_asks_for_exists() -> None:
    asked = set(re.findall(r'data-(?:text|label|placeholder|hint)="(\w+)"', HTML))
    for script in UI.glob("*.js"):
        asked |= set(
            re.findall(r'\b(?:text|inEveryLanguage)\("(\w+)"', script.read_text(encoding="utf-8"))
        )
    assert asked <= texts("en").keys()


def test_every_element_that_a_script_looks_up_is_on_the_page() -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in UI.glob("*.js"))
    asked = set(re.findall(r'byId\("([\w-]+)"', scripts))
    assert asked <= set(re.findall(r'\bid="([\w-]+)"', HTML))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://\w|//cdn|@import", text)


def test_the_page_has_no_inline_script_or_style() -> None:
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", HTML)
    assert re.findall(r"<script([^>]*)>(.*?)</script>", HTML, re.DOTALL) == [
        (' type="module" src="ui/app.js"', "")
    ]


@pytest.mark.parametrize("path", sorted(UI.glob("*.js")), ids=lambda path: path.name)
def test_scripts_are_type_checked_and_never_write_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check\n")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
