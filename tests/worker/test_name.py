"""The name of a worker that is run alone."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from forebay import cli
from forebay.worker import main


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((), "worker-this-machine"), (("--name", "left"), "left")],
    ids=["unset", "given"],
)
def test_a_worker_alone_is_named_after_its_machine_unless_it_is_told_its_name(
    arguments: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(_: Any, name: str) -> None:
        ran.append(name)

    monkeypatch.setattr(main, "run", run)
    monkeypatch.setattr(platform, "node", lambda: "this-machine")
    told = CliRunner().invoke(cli.app, ["worker", "--data-dir", str(tmp_path), *arguments])
    assert told.exit_code == 0, told.output
    assert ran == [name]
