"""The programs on the client's page run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.admission.pictures import picture
from tests.api.door import working

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8080"
SAID = ("is 12", "order", "", "", "Ended(")
"""What each of them prints, among other things."""


def test_every_program_of_the_page_is_run() -> None:
    assert len(PROGRAMS) == len(SAID)


@pytest.mark.parametrize("at", range(len(SAID)))
async def test_a_program_of_the_page_runs(door, tmp_path, at: int) -> None:
    (tmp_path / "picture.jpg").write_bytes(picture())
    assert ADDRESS in PROGRAMS[at]
    program = PROGRAMS[at].replace(ADDRESS, door.url)
    async with working(door):
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, wrong = await run.communicate()
    assert run.returncode == 0, wrong.decode()
    assert SAID[at] in told.decode()
