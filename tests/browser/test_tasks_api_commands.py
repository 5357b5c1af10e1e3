"""What the page of the tasks API tells a reader to type works, as it is typed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from forebay.config import PACKAGE_FOLDER
from scripts.running_stack import RunningStack
from tests.browser.reader import DOCS, Reader, needs_curl

pytestmark = needs_curl


@pytest.fixture
def reader(stack: RunningStack, samples: list[dict[str, str]], tmp_path: Path) -> Reader:
    found = next(one for one in samples if one["skill"] == "price" and one["file"].endswith(".jpg"))
    shutil.copy(PACKAGE_FOLDER / "samples" / found["file"], tmp_path / "picture.jpg")
    return Reader("tasks-api.md", stack, tmp_path)


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
