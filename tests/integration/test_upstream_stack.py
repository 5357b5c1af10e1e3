"""A Forebay in front of another Forebay, both whole stacks: the same answers, and none lost."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forebay.demo import load_samples
from forebay.queue.ports import StreamKind
from tests.integration.stack import ServeProcess, serving
from tests.integration.test_commands import forebay
from tests.integration.test_nothing_is_lost import ends

BURST = 24
ABANDONED = "forebay_abandoned_total"


@contextmanager
def in_front_of(stack: ServeProcess, folder: Path, *more: str) -> Iterator[ServeProcess]:
    options = ("--upstream", f"{stack.url}/v1", "--set", "upstream_concurrency=6", *more)
    with serving(Path("demo"), folder, *options, "--set", "max_tokens_default=250") as front:
        yield front


@pytest.fixture(scope="module")
def behind(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A stack whose answers do not end by themselves."""
    with serving(model, tmp_path_factory.mktemp("behind")) as stack:
        yield stack


@pytest.fixture(scope="module")
def front(behind: ServeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with in_front_of(behind, tmp_path_factory.mktemp("front")) as stack:
        yield stack


def question(picture: Path, text: str, **fields: Any) -> dict[str, Any]:
    url = f"data:image/jpeg;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    return {"model": "glm-4v-flash", "messages": messages, "max_tokens": 24, **fields}


def answered(stack: ServeProcess, body: dict[str, Any]) -> dict[str, Any]:
    reply = stack.client.post("/v1/chat/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def streamed(stack: ServeProcess, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    text, usage = "", {}
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with stack.client.stream("POST", "/v1/chat/completions", json=asked, timeout=120) as reply:
        for line in reply.iter_lines():
            data = line.removeprefix("data: ")
            if data == line or data == "[DONE]":
                continue
            chunk = json.loads(data)
            assert "error" not in chunk, chunk
            text += "".join(one["delta"].get("content") or "" for one in chunk["choices"])
            usage = chunk.get("usage") or usage
    return text, usage


def counted(stack: ServeProcess, name: str) -> float:
    lines = stack.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


def test_an_answer_through_two_stacks_is_the_demo_models_own(tmp_path: Path) -> None:
    each_computed = ("--set", "answer_cache_s=0")
    with (
        serving(Path("demo"), tmp_path / "behind", *each_computed) as behind,
        in_front_of(behind, tmp_path / "front", *each_computed) as front,
    ):
        for sample in load_samples(count=3):
            body = question(sample.path, sample.question)
            direct, through = answered(behind, body), answered(front, body)
            assert through["choices"] == direct["choices"]
            assert through["usage"] == direct["usage"]
            said = streamed(front, body)
            assert said == (direct["choices"][0]["message"]["content"], direct["usage"])


def test_a_client_that_goes_ends_the_work_behind_both(
    behind: ServeProcess, front: ServeProcess
) -> None:
    sample = load_samples(count=1)[0]
    gone = counted(behind, ABANDONED)
    body = question(sample.path, sample.question, max_tokens=2000, stream=True)
    with front.client.stream("POST", "/v1/chat/completions", json=body, timeout=120) as reply:
        for line in reply.iter_lines():
            chunk = json.loads(line[6:]) if line.startswith("data: {") else {"choices": []}
            if any(one["delta"].get("content") for one in chunk["choices"]):
                break
    behind.until(lambda: counted(behind, ABANDONED) > gone, "cancel behind")


def test_the_doctor_asks_the_upstream_for_an_answer(behind: ServeProcess, tmp_path: Path) -> None:
    arguments = ("doctor", "--json", "--data-dir", str(tmp_path))
    done = forebay(*arguments, "--upstream", behind.url)
    findings = {one["check"]: one for one in json.loads(done.stdout)}
    assert set(findings) == {"python", "disk", "port", "queue", "model", "access", "upstream"}
    assert findings["upstream"]["verdict"] == "good", findings
    done = forebay(*arguments, "--upstream", "http://127.0.0.1:9")
    findings = {one["check"]: one for one in json.loads(done.stdout)}
    assert findings["upstream"]["verdict"] == "bad"
    assert "cannot be reached" in findings["upstream"]["found"]
    assert findings["upstream"]["mend"]
    assert done.returncode == 1


def test_an_upstream_that_is_killed_whole_in_mid_burst_loses_nothing(
    behind: ServeProcess, front: ServeProcess, model: Path
) -> None:
    task_ids = front.submit(BURST)
    front.until(lambda: front.answered(task_ids) > 0, "first answers")
    assert front.answered(task_ids) < BURST, "the burst was over too soon to be struck"
    behind.tree.extend(behind.children())
    os.kill(behind.process.pid, signal.SIGKILL)
    behind.process.wait(60)
    front.until(lambda: front.client.get("/ready").status_code == 503, "word of it at /ready")
    port = behind.url.rpartition(":")[2]
    with serving(model, behind.data_dir, "--port", port) as again:
        assert again.url == behind.url
        front.await_answers(task_ids)
    assert ends(front, task_ids) == {StreamKind.DONE: BURST}
