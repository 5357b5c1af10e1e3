"""Somebody who types what a page of the docs says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.running_stack import RunningStack

DOCS = Path(__file__).resolve().parents[2] / "docs"
ADDRESS = "http://127.0.0.1:8080/"
LIMIT_S = 120

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Reader:
    """Types a page's commands one after the other, in a folder with ``picture.jpg``."""

    def __init__(self, page: str, stack: RunningStack, folder: Path) -> None:
        text = (DOCS / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        self.commands = [line for block in blocks for line in block.strip().splitlines()]
        self.task = ""
        self._url = stack.url
        self._folder = folder

    def types(self, holding: str, *more: str) -> str:
        """Run the first command that holds a text, with ``more`` arguments; return its output."""
        command = next(one for one in self.commands if holding in one).replace(ADDRESS, self._url)
        done = subprocess.run(
            ["sh", "-c", " ".join([command, *more])],
            cwd=self._folder,
            env={**os.environ, "TASK": self.task},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
