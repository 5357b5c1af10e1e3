"""The docs say what the code does: generated parts, paths, links, commands, both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.generated_docs import pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])
PAIRS = [
    (chinese.with_name(chinese.name.replace(".zh-CN", "")), chinese)
    for chinese in PAGES
    if ".zh-CN." in chinese.name
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    return FENCE.sub("", read(path))


def headings(path: Path) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(path), re.MULTILINE)]


def code_without_comments(path: Path) -> list[str]:
    blocks = [text for language, text in FENCE.findall(read(path)) if language in ("sh", "python")]
    return [re.sub(r"\s*#.*", "", block) for block in blocks]


@pytest.mark.parametrize("path", list(pages()), ids=name)
def test_generated_parts_are_those_of_the_code(path: Path) -> None:
    assert read(path) == pages()[path], "run `make docs`"


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[name(pair[0]) for pair in PAIRS])
def test_both_languages_have_the_same_sections_and_commands(english: Path, chinese: Path) -> None:
    assert headings(english) == headings(chinese)
    assert code_without_comments(english) == code_without_comments(chinese)


def test_the_pages_that_a_reader_starts_with_exist_in_both_languages() -> None:
    first = {"README.md", "docs/architecture.md", "docs/glossary.md", "docs/settings.md"}
    assert first <= {name(english) for english, _ in PAIRS}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)[^)]*\)", prose(path))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_paths_that_the_docs_name_exist(path: Path) -> None:
    named = re.findall(
        r"`((?:forebay|scripts|tests|training|bench|docs|requirements)/[\w./-]+)`", read(path)
    )
    assert [one for one in named if not (ROOT / one).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_make_verbs_that_the_docs_name_exist(path: Path) -> None:
    makefile = read(ROOT / "Makefile")
    verbs = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = read(path)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named <= verbs


def test_every_make_verb_in_the_list_has_a_recipe_and_is_phony() -> None:
    makefile = read(ROOT / "Makefile")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert phony == set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))
