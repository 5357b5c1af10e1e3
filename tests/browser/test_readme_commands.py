"""What the README tells a reader to type works, as it is typed, against a running stack."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forebay.config import PACKAGE_FOLDER
from scripts.running_stack import RunningStack

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080/"
LIMIT_S = 120


@pytest.fixture
def sample(tmp_path: Path, samples: list[dict[str, str]]) -> dict[str, str]:
    """Lay a price tag beside the reader, under the README's name for it."""
    found = next(one for one in samples if one["skill"] == "price" and one["file"].endswith(".jpg"))
    shutil.copy(PACKAGE_FOLDER / "samples" / found["file"], tmp_path / "picture.jpg")
    return found


def block(language: str, holding: str) -> str:
    """Return the README's first code block in that language with that text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(text for text in blocks if holding in text)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_openai_example_prints_an_answer(
    stack: RunningStack, sample: dict[str, str], tmp_path: Path
) -> None:
    code = block("python", "openai").replace(ADDRESS, stack.url)
    assert run([sys.executable, "-c", code], tmp_path).strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_commands_submit_and_fetch(
    stack: RunningStack, sample: dict[str, str], tmp_path: Path
) -> None:
    submit, fetch = block("sh", "curl").replace(ADDRESS, stack.url).strip().splitlines()
    task_id = json.loads(run(["sh", "-c", submit], tmp_path))["task_id"]
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        result = json.loads(run(["sh", "-c", fetch.replace("ID_FROM_ABOVE", task_id)], tmp_path))
        if result["status"] != "pending":
            break
    assert result["status"] == "success"
    assert result["response"]
