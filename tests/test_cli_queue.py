from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner, Result

from forebay.cli import EXPECTED_ERRORS, app
from forebay.core.request import TaskId
from forebay.queue.address import parse_address
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.opening import OpenQueue, open_queue
from forebay.queue.ports import Lease
from tests.queue.making import PLENTY, answer, held, task

T = TypeVar("T")


class Rig:
    """A queue that runs in a data folder, and the command line upon it."""

    def __init__(self, data_dir: Path, server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch):
        self.data_dir = data_dir
        self._url = server.url
        monkeypatch.setattr("forebay.cli_view.console.width", 200)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["queue", *arguments, "--data-dir", str(self.data_dir)])

    def read(self, *arguments: str) -> object:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def work(self, work: Callable[[OpenQueue], Awaitable[T]]) -> T:
        async def main() -> T:
            async with open_queue(parse_address(self._url)) as opened:
                return await work(opened)

        return asyncio.run(main())


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with EmbeddedValkey(tmp_path / "queue") as server:
        yield Rig(tmp_path, server, monkeypatch)


async def fill(opened: OpenQueue) -> list[Lease]:
    for name, tenant, level in (("a", "red", 1), ("b", "blue", 5), ("c", "blue", 9)):
        await opened.queue.enqueue(task(name, tenant=tenant, priority=level))
    return await opened.queue.claim("w", 1, PLENTY)


async def kill(opened: OpenQueue) -> None:
    """Make a dead letter of ``x``."""
    await opened.queue.enqueue(task("x"))
    for _ in range(3):
        leases = await opened.queue.claim("w", 1, PLENTY)
        await opened.queue.redeliver([held(one) for one in leases], "it fell over")


def ids(listing: object) -> list[str]:
    return [one["task_id"] for one in listing["tasks"]]  # type: ignore[index]


def test_tasks_are_listed_by_state_tenant_and_priority(rig: Rig) -> None:
    rig.work(fill)
    assert ids(rig.read("list")) == ["b", "c"]
    assert ids(rig.read("list", "--state", "leased")) == ["a"]
    assert ids(rig.read("list", "--tenant", "blue", "--priority", "batch")) == ["c"]
    assert ids(rig.read("list", "--limit", "1")) == ["b"]
    assert rig.read("list")["depth"]["waiting"] == 2  # type: ignore[index]
    shown = rig.run("list").output
    assert "2 waiting" in shown
    assert "blue" in shown
    assert rig.run("list", "--priority", "urgent").exit_code == 2


def test_one_task_is_shown_whole_or_said_to_be_unknown(rig: Rig) -> None:
    (lease,) = rig.work(fill)
    rig.work(lambda opened: opened.queue.finish([answer(lease, "[bold] 42 [/]")]))
    assert rig.read("show", "a")["text"] == "[bold] 42 [/]"  # type: ignore[index]
    shown = rig.run("show", "a").output
    assert "[bold] 42 [/]" in shown
    assert "finished" in shown
    unknown = rig.run("show", "nobody")
    assert isinstance(unknown.exception, EXPECTED_ERRORS)
    assert "nobody" in str(unknown.exception)


def test_tasks_are_cancelled_and_what_cannot_be_is_told(rig: Rig) -> None:
    rig.work(fill)
    assert rig.run("cancel", "b", "c").exit_code == 0
    assert ids(rig.read("list")) == []
    again = rig.run("cancel", "b")
    assert again.exit_code == 1
    assert "no such task" in again.output


def test_dead_letters_are_listed_retried_and_dropped(rig: Rig) -> None:
    rig.work(kill)
    assert [one["task_id"] for one in rig.read("dead")] == ["x"]  # type: ignore[attr-defined]
    assert "it fell over" in rig.run("dead").output
    assert rig.run("retry").exit_code == 2
    assert rig.run("retry", "nobody").exit_code == 1
    assert rig.run("retry", "--all").exit_code == 0
    assert rig.read("dead") == []
    record = rig.work(lambda opened: opened.queue.get(TaskId("x")))
    assert record is not None
    assert not record.state.final
    rig.work(lambda opened: opened.queue.cancel(TaskId("x")))
    rig.work(lambda opened: opened.queue.enqueue(task("y")))
    assert rig.run("drop", "y").exit_code == 1


def test_a_drained_queue_gives_out_nothing_until_it_is_let_go(rig: Rig) -> None:
    (lease,) = rig.work(fill)
    waited = rig.run("drain", "--wait", "0.1")
    assert waited.exit_code == 1
    assert "1 running" in waited.output
    assert rig.work(lambda opened: opened.queue.claim("w", 9, PLENTY)) == []
    rig.work(lambda opened: opened.queue.finish([answer(lease)]))
    assert rig.run("drain", "--wait", "5").exit_code == 0
    assert "drained" in rig.run("list").output
    assert rig.run("drain", "--off").exit_code == 0
    assert len(rig.work(lambda opened: opened.queue.claim("w", 9, PLENTY))) == 2


def test_without_a_running_queue_the_mend_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["queue", "list", "--data-dir", str(tmp_path)])
    assert isinstance(result.exception, EXPECTED_ERRORS)
    assert "forebay serve" in str(result.exception)


def test_a_backup_goes_to_another_folder(rig: Rig, tmp_path: Path) -> None:
    rig.work(fill)
    file = str(tmp_path / "file")
    made = rig.run("backup", file)
    assert made.exit_code == 0, made.output
    assert "3 tasks" in made.output
    other = ["--data-dir", str(tmp_path / "other")]
    brought = CliRunner().invoke(app, ["queue", "restore", file, *other])
    assert brought.exit_code == 0, brought.output
    with EmbeddedValkey(tmp_path / "other" / "queue"):
        found = CliRunner().invoke(app, ["queue", "list", "--json", *other])
        assert ids(json.loads(found.stdout)) == ["b", "c"]


def test_a_server_of_ones_own_is_not_backed_up(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["queue", "backup", str(tmp_path / "f"), "--set", "queue_url=redis://h"]
    )
    assert "valkey-cli --rdb" in str(result.exception)
