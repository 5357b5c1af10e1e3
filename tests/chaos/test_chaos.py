"""Faults against the real stack: what was promised is kept; and where it is not, it is told."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.chaos.__main__ import main
from tests.chaos.history import Accepted
from tests.chaos.run import Options, Run, run
from tests.chaos.stack import Stack

ROOT = Path(__file__).parents[2]
PROMISES = ("lost", "doubled", "gaps", "wrong", "ghosts")


def quiet(text: str) -> None:
    del text


def kept(one: Run, tasks: int, faults: int) -> None:
    figures = one.figures()
    told = json.dumps(figures, indent=2)
    assert one.kept, told
    assert {name: figures[name] for name in PROMISES} == dict.fromkeys(PROMISES, 0), told
    assert figures["accepted"] == tasks
    assert figures["faults"] == faults
    assert figures["answered"] + sum(figures["failed"].values()) == tasks
    assert figures["answered"] >= 0.9 * tasks, told


def test_150_tasks_under_12_faults_have_one_answer_each(tmp_path: Path) -> None:
    one = Run(Options(tasks=150, faults=12, seed=5))
    asyncio.run(run(one, tmp_path, quiet))
    kept(one, 150, 12)
    figures = one.figures()
    assert figures["joined"] + figures["cached"] > 5, figures


@pytest.mark.slow
def test_forebay_serve_under_faults_keeps_what_it_promised(tmp_path: Path) -> None:
    one = Run(Options(tasks=300, faults=22, seed=2, whole=True))
    asyncio.run(run(one, tmp_path, quiet))
    kept(one, 300, 22)


@pytest.mark.slow
def test_the_demo_models_answers_stay_the_same_under_faults(tmp_path: Path) -> None:
    one = Run(Options(tasks=40, faults=10, seed=3, clients=12, demo=True))
    asyncio.run(run(one, tmp_path, quiet))
    kept(one, 40, 10)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_5000_tasks_under_200_faults_have_one_answer_each(tmp_path: Path) -> None:
    one = Run(Options(tasks=5000, faults=200, seed=1))
    asyncio.run(run(one, tmp_path, quiet))
    kept(one, 5000, 200)


def test_a_wrong_answer_and_a_lost_task_are_told(tmp_path: Path) -> None:
    """The whole way from the sockets to the verdict, with promises broken on purpose."""

    async def forget(stack: Stack, one: Run) -> None:
        first = next(event for event in one.history if isinstance(event, Accepted))
        await stack.lose(first.task)

    one = Run(Options(tasks=20, faults=0, clients=8, garble=9))
    asyncio.run(run(one, tmp_path, quiet, forget))
    figures = one.figures()
    assert not one.kept
    assert figures["lost"] == 1
    assert figures["wrong"] + figures["gaps"] >= 1
    assert figures["violations"]


def test_the_command_ends_with_1_and_says_how_to_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, history = tmp_path / "out" / "figures.json", tmp_path / "history.jsonl"
    code = main(
        [
            *("--tasks", "12", "--faults", "0", "--seed", "4", "--garble", "3"),
            *("--json", str(file), "--history", str(history)),
        ]
    )
    said = capsys.readouterr().out
    figures = json.loads(file.read_text())
    assert code == 1
    assert figures["accepted"] == 12
    assert figures["wrong"] + figures["gaps"] >= 1
    assert {"accepted", "answered", "lost", "doubled", "gaps", "refused"} <= figures.keys()
    assert "python -m tests.chaos --tasks 12 --faults 0 --seed 4" in said
    assert len(history.read_text().splitlines()) > 24


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_command_is_interrupted_or_killed(
    tmp_path: Path, how: signal.Signals
) -> None:
    file = tmp_path / "figures.json"
    command = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.chaos", "--tasks", "100000", "--faults", "5000"),
            *("--json", str(file)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    with command.stdout as said:
        assert next(line for line in said if line.startswith("#0"))
        family = psutil.Process(command.pid).children(recursive=True)
        assert len(family) >= 6  # Valkey, the server that answers, two doors, two workers
        command.send_signal(how)
        said.read()
    code = command.wait(60)
    _, left = psutil.wait_procs(family, timeout=30)
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []
    if how is signal.SIGINT:
        assert code == 130
        assert json.loads(file.read_text())["stopped_by"] == "a signal"


def test_a_run_is_bounded_in_time(tmp_path: Path) -> None:
    one = Run(Options(tasks=100_000, faults=0, clients=4, limit_s=6))
    began = time.monotonic()
    asyncio.run(run(one, tmp_path, quiet))
    assert time.monotonic() - began < 90
    assert "time limit" in one.stopped_by
    assert not one.kept
