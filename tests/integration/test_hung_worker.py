"""A worker that lives and does nothing is replaced, and what it held is answered, once each."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from forebay.queue.ports import StreamKind
from tests.integration.stack import ServeProcess, serving
from tests.integration.test_nothing_is_lost import ends

BURST = 24
WORKER = "worker"
FOUND = {"engine_hung", "loop_hung", "silent"}
MOST_STILL_S = 15.0
"""Within which whatever hangs must be found, as the watchers themselves have counted."""


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("order") / "order"


@pytest.fixture(scope="module")
def stack(
    model: Path, order: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServeProcess]:
    paths = (str(Path(__file__).with_name("sabotage")), os.environ.get("PYTHONPATH", ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("SABOTAGE_ORDER", str(order))
        options = ("--set", "max_tokens_default=120", "--set", "stall_s=10")
        with serving(model, tmp_path_factory.mktemp("stack"), *options) as stack:
            yield stack


def replaced(stack: ServeProcess) -> dict[str, int]:
    """Return what the metric says."""
    shown = stack.client.get("/metrics").text
    found = re.findall(r'forebay_worker_replaced_total\{reason="(\w+)"\} (\d+)', shown)
    return {reason: int(count) for reason, count in found}


def burst(stack: ServeProcess, prompt: str) -> list[str]:
    """Send a burst, and return when the worker has begun with it."""
    task_ids = stack.submit(BURST, prompt)
    stack.until(lambda: stack.answered(task_ids[:4]) > 0, "first answers")
    return task_ids


def see_replaced(stack: ServeProcess, old: int, task_ids: list[str]) -> None:
    stack.await_answers(task_ids)
    assert ends(stack, task_ids) == {StreamKind.DONE: BURST}
    assert not psutil.pid_exists(old) or psutil.Process(old).status() == psutil.STATUS_ZOMBIE
    stack.until(lambda: stack.client.get("/ready").is_success, "readiness")
    stack.tree.extend(stack.children())
    assert 0 < max(counted_s(stack)) <= MOST_STILL_S


def counted_s(stack: ServeProcess) -> list[float]:
    """Return how long each hang had lasted when it was found, from the log."""
    told = [json.loads(line) for line in stack.output().splitlines() if line.startswith("{")]
    return [line["after_s"] for line in told if line["event"] in FOUND]


def test_a_stopped_worker(stack: ServeProcess) -> None:
    old = stack.until(lambda: stack.pid_of(WORKER), WORKER)
    before = replaced(stack).get("silent", 0)
    task_ids = burst(stack, "who stopped it")
    os.kill(old, signal.SIGSTOP)
    see_replaced(stack, old, task_ids)
    assert replaced(stack)["silent"] == before + 1


@pytest.mark.parametrize(
    ("way", "reason", "stack_shows"),
    [
        ("sleep", "engine_hung", "_sleep"),
        ("spin", "engine_hung", "_spin"),
        ("deadlock", "engine_hung", "_deadlock"),
        ("hold the inbox", "engine_hung", "_hold_the_inbox"),
        ("hold the interpreter", "silent", "_hold_the_interpreter"),
    ],
)
def test_a_step_that_never_returns(
    stack: ServeProcess, order: Path, way: str, reason: str, stack_shows: str
) -> None:
    old = stack.until(lambda: stack.pid_of(WORKER), WORKER)
    before = replaced(stack).get(reason, 0)
    task_ids = burst(stack, f"why does it {way}")
    order.write_text(way, encoding="utf-8")
    stack.until(lambda: not order.exists(), "obedience")
    see_replaced(stack, old, task_ids)
    assert replaced(stack)[reason] == before + 1
    assert stack_shows in stack.output()  # where it hung is in the log
