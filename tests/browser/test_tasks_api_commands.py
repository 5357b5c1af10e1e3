"""What the page of the tasks API tells a reader to type works, as it is typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from forebay.config import PACKAGE_FOLDER
from scripts.running_stack import RunningStack

DOCS = Path(__file__).resolve().parents[2] / "docs"
ADDRESS = "http://127.0.0.1:8080/"
LIMIT_S = 120

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Reader:
    """Somebody who types the page's commands one after the other."""

    def __init__(self, stack: RunningStack, folder: Path) -> None:
        text = (DOCS / "tasks-api.md").read_text(encoding="utf-8")
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


@pytest.fixture
def reader(stack: RunningStack, samples: list[dict[str, str]], tmp_path: Path) -> Reader:
    found = next(one for one in samples if one["skill"] == "price" and one["file"].endswith(".jpg"))
    shutil.copy(PACKAGE_FOLDER / "samples" / found["file"], tmp_path / "picture.jpg")
    return Reader(stack, tmp_path)


def test_every_command_of_the_page_does_what_the_page_says(reader: Reader) -> None:
    assert len(reader.commands) == 8
    task = json.loads(reader.types("picture.jpg"))
    assert (task["priority"], task["metadata"]) == ("vip", {"order": "7"})
    again = reader.types("picture.jpg", "-D -")
    assert "idempotent-replayed: true" in again.lower()
    assert task["id"] in again
    waited = json.loads(reader.types("Prefer"))
    assert waited["status"] == "finished"
    assert waited["usage"]["completion_tokens"] <= 20
    reader.task = task["id"]
    events = reader.types("/events")
    assert "event: done" in events
    assert "event: delta" in reader.types("starting_after")
    final = json.loads(reader.types("/v1/tasks/$TASK"))
    assert final["status"] == "finished"
    result = json.loads(reader.types("/result"))
    assert result["choices"][0]["message"]["content"] == final["output"][0]["text"]
    assert json.loads(reader.types("-X DELETE"))["error"]["code"] == "task_ended"
    assert json.loads(reader.types("state=queued")) == {
        "object": "list",
        "data": [],
        "next_cursor": None,
    }


@pytest.mark.parametrize("page", ["tasks-api.md", "tasks-api.zh-CN.md"])
def test_the_task_that_the_page_shows_has_the_fields_of_a_real_one(
    reader: Reader, page: str
) -> None:
    shown = re.search(r"```json\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    real = json.loads(reader.types("Prefer"))
    assert list(json.loads(shown[1])) == list(real)
