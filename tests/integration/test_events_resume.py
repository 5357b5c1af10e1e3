"""Who follows a task has its exact text, whatever is killed with SIGKILL in mid-answer."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.integration.stack import WAIT_S, ServeProcess, serving

TASK = {"prompt": "what is it", "max_tokens": 400, "temperature": 0.9, "seed": 7}
ENDS = ("done", "error", "cancelled")


@pytest.fixture(scope="module")
def stack(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with serving(model, tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@dataclass
class Follower:
    """Follows a task as a careful client does: by the last id, again and again, until its end."""

    stack: ServeProcess
    task_id: str
    text: str = ""
    place: str = ""
    names: list[str] = field(default_factory=list)
    final: dict | None = None
    connections: int = 0

    def follow(self, at_first_text: Callable[[], None]) -> None:
        """Follow to the end; ``at_first_text`` is called once, in the middle of the answer."""
        strike: Callable[[], None] | None = at_first_text
        until = time.monotonic() + WAIT_S
        while self.final is None:
            assert time.monotonic() < until, self.names
            try:
                for name, content in self._events():
                    self._take(name, content)
                    if name == "delta" and strike is not None:
                        strike, struck = None, strike
                        struck()
            except httpx.TransportError:
                time.sleep(0.1)

    def _events(self) -> Iterator[tuple[str, dict]]:
        headers = {"Last-Event-ID": self.place} if self.place else {}
        path = f"/v1/tasks/{self.task_id}/events"
        self.connections += 1
        with self.stack.client.stream("GET", path, headers=headers) as reply:
            assert reply.status_code == 200
            fields: dict[str, str] = {}
            for line in reply.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                if "data" in fields:
                    self.place = fields.get("id", self.place)
                    yield fields["event"], json.loads(fields["data"])
                fields = {}

    def _take(self, name: str, content: dict) -> None:
        self.names.append(name)
        if name == "restart":
            self.text = ""
        elif name == "delta":
            self.text += content["text"]
        elif name in ENDS:
            self.final = content


def begin(stack: ServeProcess) -> Follower:
    reply = stack.client.post("/v1/tasks", json=TASK)
    assert reply.status_code == 202, reply.text
    return Follower(stack, reply.json()["id"])


def assert_whole(follower: Follower) -> None:
    final = follower.final
    assert final is not None
    assert final["status"] == "finished", final
    assert follower.text == final["output"][0]["text"]
    assert len(follower.text) > 100
    result = follower.stack.client.get(final["urls"]["result"]).json()
    assert follower.text == result["choices"][0]["message"]["content"]


def test_a_stream_goes_on_after_the_api_is_killed(stack: ServeProcess) -> None:
    follower = begin(stack)
    follower.follow(lambda: stack.kill_child("api"))
    assert_whole(follower)
    assert follower.connections > 1
    assert "restart" not in follower.names


def test_a_stream_starts_over_after_the_worker_is_killed_and_the_text_is_exact(
    stack: ServeProcess,
) -> None:
    follower = begin(stack)
    follower.follow(lambda: stack.kill_child("worker"))
    assert_whole(follower)
    assert follower.names.count("restart") == 1
    assert follower.final["deliveries"] == 2


def test_a_stream_goes_on_after_the_queues_server_is_killed(stack: ServeProcess) -> None:
    follower = begin(stack)
    pid = stack.queue_server()

    def strike() -> None:
        os.kill(pid, signal.SIGKILL)

    follower.follow(strike)
    stack.tree.append(stack.queue_server())
    assert_whole(follower)
