"""A stack under load whose workers are drained, restarted, added and dismissed: nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.queue.ports import StreamKind
from tests.integration.stack import ServeProcess, serving
from tests.integration.test_nothing_is_lost import ends

pytestmark = pytest.mark.slow

BURST = 24
A = "/v1/admin"


class Hands:
    """An administrator of a running stack."""

    def __init__(self, stack: ServeProcess) -> None:
        self.stack = stack
        command = ("keys", "create", "hands", "--scope", "admin", "--json")
        made = subprocess.run(
            [sys.executable, "-m", "forebay", *command, "--data-dir", str(stack.data_dir)],
            capture_output=True,
            check=True,
        )
        self.headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}

    def get(self, path: str) -> dict[str, Any]:
        reply = self.stack.client.get(A + path, headers=self.headers)
        assert reply.is_success, reply.text
        return dict(reply.json())

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        reply = self.stack.client.post(A + path, json=body, headers=self.headers)
        assert reply.status_code == 202, reply.text
        return dict(reply.json())

    def workers(self) -> dict[str, dict[str, Any]]:
        return {str(one["id"]): one for one in self.get("/workers")["data"]}

    def states(self) -> list[str]:
        return sorted(str(one["state"]) for one in self.workers().values())

    def until_states(self, *states: str) -> None:
        self.stack.until(lambda: self.states() == sorted(states), f"workers that are {states}")
        self.stack.tree.extend(self.stack.children())

    def light(self) -> tuple[str, set[str]]:
        light = self.get("/now")["light"]
        return light["color"], {one["code"] for one in light["reasons"]}


@pytest.fixture(scope="module")
def hands(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    options = ("--set", "max_tokens_default=120", "--set", "workers=1")
    with serving(model, tmp_path_factory.mktemp("stack"), *options) as stack:
        yield Hands(stack)


def burst(hands: Hands, prompt: str) -> list[str]:
    """Send a burst, and return when the workers have begun with it."""
    task_ids = hands.stack.submit(BURST, prompt)
    hands.stack.until(lambda: hands.stack.answered(task_ids[:4]) > 0, "first answers")
    return task_ids


def see_answered(hands: Hands, task_ids: list[str]) -> None:
    hands.stack.await_answers(task_ids)
    assert ends(hands.stack, task_ids) == {StreamKind.DONE: BURST}


def test_a_drained_worker_takes_nothing_and_its_work_waits_for_it(hands: Hands) -> None:
    hands.until_states("ready")
    (worker,) = hands.workers()
    task_ids = burst(hands, "what of a drain")
    hands.post(f"/workers/{worker}/drain")
    hands.until_states("drained")
    hands.stack.until(lambda: hands.light()[0] == "red", "a red light")
    assert "no_workers" in hands.light()[1]
    left = hands.get("/limits")["load"]
    assert left["running"] == 0
    assert left["waiting"] == BURST - hands.stack.answered(task_ids)
    hands.post(f"/workers/{worker}/undrain")
    see_answered(hands, task_ids)
    hands.stack.until(lambda: hands.light()[0] != "red", "a light that is not red")


def test_a_restarted_worker_drains_first_and_begins_anew_once(hands: Hands) -> None:
    (worker,) = hands.workers()
    before = hands.workers()[worker]["pid"]
    task_ids = burst(hands, "what of a restart")
    hands.post(f"/workers/{worker}/restart")
    hands.stack.until(
        lambda: (one := hands.workers()[worker])["pid"] != before and one["state"] == "ready",
        "another process",
    )
    after = hands.workers()[worker]["pid"]
    see_answered(hands, task_ids)
    assert hands.workers()[worker]["pid"] == after
    assert hands.workers()[worker]["ordered"] is None
    for task_id in task_ids:
        timeline = hands.get(f"/tasks/{task_id}")["timeline"]
        assert timeline[-1]["stage"] == "finished"
        assert {one["why"] for one in timeline if one["stage"] == "returned"} <= {"released"}
    hands.stack.tree.extend(hands.stack.children())


def test_workers_are_added_and_dismissed_under_load(hands: Hands) -> None:
    task_ids = burst(hands, "what of more hands")
    (stack,) = hands.post("/workers/scale", {"count": 2})["stacks"]
    hands.until_states("ready", "ready")
    more = hands.stack.submit(BURST, "what of both")
    hands.stack.until(
        lambda: all(one["answered"] for one in hands.workers().values()), "answers of both"
    )
    last = hands.stack.submit(BURST, "what of fewer hands")
    hands.post("/workers/scale", {"count": 1})
    for some in (task_ids, more, last):
        see_answered(hands, some)
    hands.until_states("ready")
    (found,) = hands.get("/workers")["stacks"]
    assert (found["id"], found["workers"], found["wanted"]) == (stack, 1, 1)
    counted = [one["action"] for one in hands.get("/audit")["data"]]
    assert counted.count("worker.scale") == 2
