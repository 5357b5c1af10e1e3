from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import queue_report
from bench.peer_setup import QUEUES
from bench.peers import PeerMissingError
from bench.queue_contenders import ALONE, CONTENDERS, OURS, OURS_UNIX, PEERS, contenders
from bench.queue_large import large
from bench.queue_plan import QUICK, QueuePlan
from bench.queue_process import measure
from bench.queue_systems.marks import Marks
from bench.queue_waits import claim, fairness


@pytest.fixture
def plan(tmp_path: Path) -> QueuePlan:
    return QueuePlan(peers=(), home=tmp_path, work=tmp_path, sizes=QUICK, save=lambda *_: None)


def made(process: float, enqueue: float) -> dict[str, Any]:
    return {"tasks": 10, "process_per_s": process, "enqueue_per_s": enqueue}


def test_a_ratio_is_to_the_fastest_peer_of_each_round() -> None:
    rounds = [
        {
            OURS: made(6000, 2000),
            OURS_UNIX: made(9999, 9999),
            "saq": made(1000, 1000),
            "rq": made(2000, 500),
        },
        {
            OURS: made(5000, 3000),
            ALONE: made(9999, 9999),
            "saq": made(1000, 1500),
            "rq": made(100, 100),
        },
        {OURS: made(4000, 1000), "saq": made(1000, 4000), "rq": {"failed": "it broke"}},
    ]
    found = queue_report.summary({"process": {"rounds": rounds}})
    assert found["process_vs_best"] == 4  # of 3, 5 and 4
    assert found["enqueue_vs_best"] == 2  # of 2, 2 and 0.25


def test_a_round_without_ours_or_without_a_peer_gives_no_ratio() -> None:
    rounds = [{OURS: {"failed": "it broke"}, "saq": made(1, 1)}, {OURS: made(1, 1)}]
    assert queue_report.summary({"process": {"rounds": rounds}})["process_vs_best"] is None
    assert set(queue_report.summary({}).values()) == {None}


def test_the_other_parts_give_their_figures() -> None:
    found = queue_report.summary(
        {
            "claim": {"tcp": {"p50": 1.5, "p99": 4.0}, "unix": {"p50": 1.0, "p99": 2.0}},
            "large": {
                "tasks": 1000,
                "used_memory": 900_000,
                queue_report.CLAIM: {"few": {"p50": 2.0}, "many": {"p50": 3.0}},
            },
            "fairness": {"alone": [1.0, 2.0, 1.0], "beside": [1.2, 2.2, 1.4]},
        }
    )
    assert found["claim_p50_ms"] == 1.5
    assert found["claim_p99_ms"] == 4.0
    assert found["bytes_per_task"] == 900
    assert found["claim_growth"] == 1.5
    assert found["fairness"] == pytest.approx(1.2)


def test_marks_count_every_run_of_every_task_from_any_thread(tmp_path: Path) -> None:
    marks = Marks.create(tmp_path / "marks", 400)
    threads = [
        threading.Thread(target=lambda at=at: [marks.ran(n) for n in range(at, 400, 4)])
        for at in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    seen = Marks(tmp_path / "marks")
    first, last = seen.times()
    assert 0 < first <= last
    assert set(seen.runs()) == {1}
    marks.ran(7)
    assert seen.runs()[7] == 2


def test_marks_say_when_a_task_was_claimed_and_nothing_before(tmp_path: Path) -> None:
    marks = Marks.create(tmp_path / "marks", 3)
    assert marks.times() == (0.0, 0.0)
    marks.claim(2)
    assert marks.claimed(1) == 0.0
    assert marks.claimed(2) == marks.times()[0] > 0
    assert marks.runs() == bytes(3)


@pytest.mark.parametrize("name", [OURS, OURS_UNIX, ALONE])
def test_each_of_ours_answers_every_task_once(plan: QueuePlan, name: str) -> None:
    figures = measure(plan, CONTENDERS[name])
    assert "failed" not in figures, figures
    assert figures["process_per_s"] > 0
    assert figures["enqueue_per_s"] > 0


def test_a_worker_that_does_not_start_is_told_in_the_figures(plan: QueuePlan) -> None:
    broken = replace(CONTENDERS[OURS], worker=(CONTENDERS[OURS].worker[0], "-c", "1 / 0"))
    assert "ZeroDivisionError" in measure(plan, broken)["failed"]


def test_the_parts_about_waiting_run(plan: QueuePlan) -> None:
    waits = claim(plan, "claim")
    assert len(waits["tcp"]["all"]) == len(waits["unix"]["all"]) == QUICK.submits
    assert 0 < waits["tcp"]["p50"] <= waits["tcp"]["p99"]
    assert len(fairness(plan, "fairness")["beside"]) == QUICK.rounds


def test_a_large_queue_is_weighed_and_claimed_from(plan: QueuePlan) -> None:
    found = large(plan, "large")
    assert found["tasks"] == QUICK.many
    assert found["used_memory"] > QUICK.many * 100
    assert len(found[queue_report.CLAIM]["many"]["all"]) == QUICK.claims


def test_every_peer_can_be_installed_and_a_missing_one_is_told(tmp_path: Path) -> None:
    assert {CONTENDERS[name].system for name in PEERS} == set(QUEUES)
    with pytest.raises(PeerMissingError, match="make peers ARGS='queue'"):
        contenders(["saq"], tmp_path)
    with pytest.raises(PeerMissingError, match="known: saq"):
        contenders(["sak"], tmp_path)
    python = tmp_path / "queue" / "saq" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert [one.name for one in contenders(["saq"], tmp_path)] == [OURS, OURS_UNIX, ALONE, "saq"]
