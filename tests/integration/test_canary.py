"""A canary beside a stable worker: its share, and what becomes of one that cannot do its work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from forebay.queue.ports import StreamKind
from tests.checkpoints import TINY, write_checkpoint
from tests.integration.stack import ServeProcess, serving
from tests.integration.test_nothing_is_lost import ends

pytestmark = pytest.mark.slow
SETTINGS = ("canary_least=5", "canary_window_s=120", "max_tokens_default=4")
OPTIONS = [part for one in SETTINGS for part in ("--set", one)]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("new"), replace(TINY, stop_tokens=()), seed=7)


@pytest.fixture(scope="module")
def deaf_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that starts well, and computes no number for what says ``zzz``."""
    folder = write_checkpoint(tmp_path_factory.mktemp("deaf"), replace(TINY, stop_tokens=()))
    file = folder / "model.safetensors"
    tensors = load_file(file)
    words = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("zzz").ids
    [embeddings] = [name for name in tensors if name.endswith("embed_tokens.weight")]
    tensors[embeddings][words] = torch.nan
    save_file(tensors, file)
    return folder


@pytest.fixture(scope="module")
def stack(
    model: Path, other_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("stack")
    with serving(model, folder, "--canary-model", str(other_model), *OPTIONS) as stack:
        administer(stack)
        yield stack


def command(stack: ServeProcess, *words: str) -> dict[str, Any]:
    """Run a command on the stack's queue; return the JSON that it prints."""
    where = ("--data-dir", str(stack.data_dir), "--json")
    run = [sys.executable, "-m", "forebay", *words, *where]
    return dict(json.loads(subprocess.check_output(run)))


def administer(stack: ServeProcess) -> None:
    """Have the stack's client bring a key that may do everything."""
    scopes = [part for one in ("infer", "tasks", "admin") for part in ("--scope", one)]
    key = command(stack, "keys", "create", "test", *scopes)["key"]
    stack.client.headers["Authorization"] = f"Bearer {key}"


def canary(stack: ServeProcess) -> dict[str, Any]:
    reply = stack.client.get("/v1/admin/canary")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def set_share(stack: ServeProcess, share: float) -> dict[str, Any]:
    reply = stack.client.put("/v1/admin/canary", json={"share": share})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def tasks_of(stack: ServeProcess) -> tuple[int, int]:
    told = canary(stack)["figures"]
    return told["stable"]["tasks"], told["canary"]["tasks"]


def burst(stack: ServeProcess, count: int, prompt: str) -> list[str]:
    task_ids = stack.submit(count, prompt)
    stack.await_answers(task_ids)
    return task_ids


def await_canary(stack: ServeProcess) -> None:
    stack.until(lambda: canary(stack)["workers"]["canary"] == 1, "canary")


def test_the_slider_gives_a_canary_nothing_its_share_and_everything(stack: ServeProcess) -> None:
    await_canary(stack)
    burst(stack, 6, "zero")
    assert tasks_of(stack) == (0, 0)  # no share, no trial
    set_share(stack, 0.5)
    for number in range(5):
        burst(stack, 8, f"half {number}")
    stable, new = tasks_of(stack)
    assert stable + new == 40
    assert 10 <= new <= 30  # it may have been full when it was its turn
    set_share(stack, 1)
    task_ids = burst(stack, 8, "one")
    assert tasks_of(stack) == (0, 8)
    assert ends(stack, task_ids) == {StreamKind.DONE: 8}
    set_share(stack, 0)


def test_the_command_and_the_door_say_the_same(stack: ServeProcess) -> None:
    set_share(stack, 0.25)
    assert command(stack, "canary", "show")["share"] == 0.25
    assert command(stack, "canary", "set", "0")["share"] == 0
    assert canary(stack)["share"] == 0
    log = stack.client.get("/v1/admin/canary/log").json()["data"]
    assert [one["share"] for one in log[:2]] == [0, 0.25]
    assert command(stack, "canary", "log")["data"] == log
    audit = stack.client.get("/v1/admin/audit").json()["data"]
    assert [one["action"] for one in audit[:2]] == ["canary.set", "canary.set"]


def test_a_canary_killed_with_tasks_in_its_hands_loses_none(stack: ServeProcess) -> None:
    set_share(stack, 1)
    task_ids = stack.submit(16, "killed")
    stack.kill_child(next(part for part in names(stack) if part.startswith("canary-")))
    stack.await_answers(task_ids)
    assert ends(stack, task_ids) == {StreamKind.DONE: 16}
    await_canary(stack)
    set_share(stack, 0)


def names(stack: ServeProcess) -> list[str]:
    return [one.name.removesuffix(".status.json") for one in run_files(stack)]


def run_files(stack: ServeProcess) -> list[Path]:
    return list((stack.data_dir / "run").glob("*.status.json"))


def test_a_canary_that_fails_at_everything_is_rolled_back_and_every_task_answered_once(
    model: Path, deaf_model: Path, tmp_path: Path
) -> None:
    with serving(model, tmp_path, "--canary-model", str(deaf_model), *OPTIONS) as stack:
        administer(stack)
        await_canary(stack)
        set_share(stack, 0.5)
        task_ids = [each for number in range(4) for each in stack.submit(8, f"zzz {number}")]
        stack.await_answers(task_ids)
        assert ends(stack, task_ids) == {StreamKind.DONE: 32}
        told = stack.until(
            lambda: now if (now := canary(stack))["rolled_back"] else None, "rollback"
        )
        assert (told["share"], told["last"]["reason"]) == (0, "failed")
        assert told["last"]["figures"]["canary"]["failed"] >= 5
        assert told["last"]["figures"]["stable"]["failed"] == 0
        audit = stack.client.get("/v1/admin/audit").json()["data"]
        assert audit[0]["action"] == "canary.rollback"
        stack.until(lambda: fires(stack), "alert")
        burst(stack, 4, "after")


def fires(stack: ServeProcess) -> bool:
    found = stack.client.get("/v1/admin/alerts").json()["data"]
    return any(one["rule"] == "CanaryRolledBack" and one["state"] == "firing" for one in found)
