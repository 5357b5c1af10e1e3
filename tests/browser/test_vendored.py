"""What others wrote, in the pages and in their tests: the very files, with version and licence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "forebay" / "ui" / "vendor", ROOT / "tests" / "browser" / "axe")
OWN = (".d.ts", ".d.mts", ".LICENSE", "VENDORED.json", "LICENSE", "LICENSE-3RD-PARTY.txt")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_vendored_files_are_the_very_files_that_were_taken(folder: Path) -> None:
    pinned = json.loads((folder / "VENDORED.json").read_text(encoding="utf-8"))
    assert {file.name for file in folder.iterdir() if not file.name.endswith(OWN)} == set(pinned)
    for name, facts in pinned.items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == facts["sha256"], name
        of_package = [other for other, one in pinned.items() if one["name"] == facts["name"]]
        versions = [facts["version"].encode() in (folder / one).read_bytes() for one in of_package]
        assert any(versions), name  # a style sheet may not say it, its script does
        licence = (folder / facts["licence_file"]).read_text(encoding="utf-8")
        assert len(licence) > 500, name
        assert all(facts[key] for key in ("name", "licence", "source")), name
