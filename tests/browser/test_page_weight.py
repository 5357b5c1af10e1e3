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


def loaded(page: str) -> set[Path]:
    """Return the page and every script, style and icon of it, the scripts that these import too."""
    html = (UI / page).read_text(encoding="utf-8")
    html = re.sub(r'<link rel="modulepreload"[^>]*>', "", html)
    wanted = [UI / name for name in re.findall(r'(?:src|href)="ui/([^"]+)"', html)]
    found = {UI / page}
    while wanted:
        file = wanted.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix in (".js", ".mjs"):
            names = IMPORT.findall(file.read_text(encoding="utf-8"))
            wanted += [(file.parent / name).resolve() for name in names]
    return found


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
def test_a_page_names_all_its_modules_at_once(page: str) -> None:
    """Else a browser learns of each only from the one before it."""
    html = (UI / page).read_text(encoding="utf-8")
    named = re.findall(
        r'(?:rel="modulepreload" href|<script(?: type="module")? src)="ui/([^"]+)"', html
    )
    scripts = {file for file in loaded(page) if file.suffix in (".js", ".mjs")}
    assert {UI / name for name in named} == scripts
    assert len(named) == len(scripts)
