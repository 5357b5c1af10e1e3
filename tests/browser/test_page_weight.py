"""What a page weighs, counted over everything that it loads at its start."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

UI = Path(__file__).resolve().parents[2] / "forebay" / "ui"
MOST_BYTES = 120 * 1024
PAGES = ("index.html", "console.html")

IMPORT = re.compile(r"""^(?:import|export)\b[^"';]*["'](\.\.?/[^"']+)["']""", re.MULTILINE)
LATER = re.compile(r"""\bimport\("(\.\.?/[^"]+)"\)""")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
"""It may name another script's types."""

SCRIPT = re.compile(r'<script[^>]* src="ui/([^"]+)"')
PRELOAD = re.compile(r'<link rel="modulepreload" href="ui/([^"]+)">')


def imported(file: Path, pattern: re.Pattern[str]) -> set[Path]:
    names = pattern.findall(COMMENT.sub("", file.read_text(encoding="utf-8")))
    return {(file.parent / name).resolve() for name in names}


def graph(roots: set[Path]) -> set[Path]:
    """Return the scripts and all that they import, each before it can run."""
    found: set[Path] = set()
    wanted = set(roots)
    while wanted:
        file = wanted.pop()
        found.add(file)
        wanted |= imported(file, IMPORT) - found
    return found


def parts(page: str) -> tuple[str, str]:
    """Return the page without what it fetches when it is usable, and that."""
    html = (UI / page).read_text(encoding="utf-8")
    rest = re.search(r'<template id="rest">(.*?)</template>', html, re.DOTALL)
    return (html.replace(rest[0], ""), rest[1]) if rest else (html, "")


def start(page: str) -> set[Path]:
    """Return the scripts that run before the page is usable."""
    return graph({UI / name for name in SCRIPT.findall(parts(page)[0])})


def later(page: str) -> set[Path]:
    """Return the scripts that come after it, which the start's or the page itself ask for."""
    first = start(page)
    asked = {UI / name for name in SCRIPT.findall(parts(page)[1])}
    return graph(asked.union(*(imported(file, LATER) for file in first))) - first


def loaded(page: str) -> set[Path]:
    """Return the page and every script, style and icon of it."""
    html = PRELOAD.sub("", (UI / page).read_text(encoding="utf-8"))
    files = {UI / name for name in re.findall(r'(?:src|href)="ui/([^"]+)"', html)}
    return {UI / page} | files | start(page) | later(page)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_light(page: str) -> None:
    files = loaded(page)
    assert len(files) > 5
    weighed = {file.name: len(gzip.compress(file.read_bytes(), 6)) for file in files}
    assert sum(weighed.values()) < MOST_BYTES, sorted(weighed.items(), key=lambda one: -one[1])


def test_every_script_is_loaded_by_a_page() -> None:
    everything = set().union(*(loaded(page.name) for page in UI.glob("*.html")))
    patterns = ("*.js", "console/*.js", "vendor/*.js", "vendor/*.mjs")
    scripts = {file for pattern in patterns for file in UI.glob(pattern) if not only_types(file)}
    assert scripts <= everything


def only_types(file: Path) -> bool:
    """Return whether a script holds nothing but types: those need not be loaded."""
    return file.read_text(encoding="utf-8").endswith("\nexport {};\n")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_the_modules_of_its_start_at_once(page: str) -> None:
    """Else a browser learns of each only from the one before it."""
    html = parts(page)[0]
    named = PRELOAD.findall(html) + SCRIPT.findall(html)
    assert {UI / name for name in named} == start(page)
    assert len(named) == len(start(page))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_the_modules_of_the_rest_at_once_when_it_is_usable(page: str) -> None:
    rest = parts(page)[1]
    named = PRELOAD.findall(rest) + SCRIPT.findall(rest)
    assert {UI / name for name in named} == later(page)
    assert len(named) == len(later(page))


@pytest.mark.parametrize("page", PAGES)
def test_little_stands_before_a_page_is_usable(page: str) -> None:
    """Every file costs a round trip: the start is a fraction of the page."""
    assert len(start(page)) <= 18, sorted(file.name for file in start(page))
