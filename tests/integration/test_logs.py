"""A whole run's log: every line is of the known form, and nothing of what was asked is in it."""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from forebay.log_fields import ALLOWED
from tests.integration.stack import _picture, serving

PROMPT = "zxqvprompt"
KEY = "zxqvkey"
QUERY = "zxqvquery"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {
    "Authorization": f"Bearer {KEY}",
    "Cookie": f"session={KEY}",
    "X-Api-Key": KEY,
    "X-Request-Id": "request-7",
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    "Cache-Control": "no-store",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], bytes]:
    """Return the run's lines, and the picture that was asked about."""
    folder: Path = tmp_path_factory.mktemp("run")
    picture = _picture(7)
    with serving(
        Path("demo"), folder, "--set", "log_format=json", "--set", "log_level=debug"
    ) as stack:
        bodies = (chat(picture), chat(b"no picture"), {"messages": PROMPT}, [PROMPT])
        for body, status in zip(bodies, (200, 422, 400, 400), strict=True):
            told = stack.client.post(
                "/v1/chat/completions", params={"q": QUERY}, json=body, headers=HEADERS
            )
            assert told.status_code == status, told.text
        stack.client.post("/v1/chat/completions", content=f'{{"{PROMPT}"', headers=HEADERS)
        stack.client.post("/v1/infer", json={"prompt": PROMPT, PROMPT: 1}, headers=HEADERS)
        form = {"prompt": PROMPT, "priority": PROMPT}
        stack.client.post("/predict", files={"image": picture}, data=form, headers=HEADERS)
        stack.client.get("/result", params={"task_id": QUERY}, headers=HEADERS)
        stack.client.get("/v1/tasks", params={"cursor": QUERY}, headers=HEADERS)
        stack.stop(signal.SIGTERM)
        return stack.output().splitlines(), picture


def chat(picture: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    parts = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": parts}]
    return {"model": "glm-4v-flash", "messages": messages, "max_tokens": 8}


def lines_of(run: tuple[list[str], bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run[0] if line.startswith("{")]


def test_nothing_of_what_was_asked_is_written_down(run: tuple[list[str], bytes]) -> None:
    lines, picture = run
    log = "\n".join(lines)
    for secret in (PROMPT, KEY, QUERY, base64.b64encode(picture).decode()[:40]):
        assert secret not in log


def test_every_line_is_json_with_known_fields(run: tuple[list[str], bytes]) -> None:
    lines = lines_of(run)
    assert len(lines) > 10
    for line in lines:
        assert set(line) <= ALLOWED
        assert "dropped" not in line, line
        assert {"event", "level", "logger", "timestamp", "process"} <= set(line)


def test_a_request_is_found_by_its_trace_at_the_door_and_at_the_worker(
    run: tuple[list[str], bytes],
) -> None:
    of_trace = [line for line in lines_of(run) if line.get("trace_id") == TRACE]
    at_door = [line for line in of_trace if line["event"] == "request"]
    assert {line["request_id"] for line in at_door} == {"request-7"}
    assert len({line["span_id"] for line in at_door}) == len(at_door)
    answered = [line for line in of_trace if line["event"] == "task_answered"]
    assert len(answered) == 1
    assert answered[0]["process"].startswith("worker")
