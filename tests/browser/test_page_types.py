"""The pages' scripts keep the types that their JSDoc states."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import page_types

UI = Path(__file__).resolve().parents[2] / "forebay" / "ui"


@pytest.fixture(scope="module")
def typescript() -> Path:
    try:
        return page_types.typescript()
    except page_types.NoTypeScriptError as error:
        pytest.skip(str(error))


def test_the_pages_scripts_keep_their_types(typescript: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.page_types"],
        cwd=page_types.ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_type_would_be_found(typescript: Path, tmp_path: Path) -> None:
    config = page_types.ROOT / "jsconfig.json"
    (tmp_path / "jsconfig.json").write_text(config.read_text().replace("forebay/ui/", ""))
    (tmp_path / "a.js").write_text("/** @type {number} */\nexport const a = 'b';\n")
    tsc = typescript / "package" / "lib" / "tsc.js"
    command = [page_types.node(), str(tsc), "-p", str(tmp_path / "jsconfig.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "TS2322" in done.stdout
