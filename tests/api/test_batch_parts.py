"""The parts of a batch: its input's lines, the log of its results, its window on the queue."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.batches.lines import LineLimits, plan_of
from forebay.api.batches.results import ResultLog
from forebay.api.batches.window import Window

URL = "/v1/chat/completions"
LIMITS = LineLimits(most=1000, longest=10_000)


def line(name: str, **body) -> bytes:
    told = {"custom_id": name, "method": "POST", "url": URL, "body": body}
    return json.dumps(told, ensure_ascii=False).encode()


@given(
    names=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=20, unique=True),
    ends=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    last=st.booleans(),
)
def test_every_request_is_read_again_from_where_it_lies(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], ends: bytes, last: bool
) -> None:
    names = [name.encode(errors="replace").decode() for name in names]
    names = list(dict.fromkeys(names))
    path = tmp_path_factory.mktemp("lines") / "in"
    path.write_bytes(ends.join(line(name, at=name) for name in names) + (ends if last else b""))
    plan = plan_of(path, URL, LIMITS)
    assert plan.faults == []
    read = [plan.read(at) for at in range(len(plan.places))]
    assert [one.custom_id for one in read] == names
    assert [one.body for one in read] == [{"at": name} for name in names]


def test_a_line_over_the_limit_is_not_held_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(line("a") + b"\n" + line("b", text="x" * 20_000) + b"\n" + line("c"))
    [fault] = plan_of(path, URL, LIMITS).faults
    assert (fault.code, fault.line) == ("line_too_long", 2)


def test_a_hundred_faults_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"x\n" * 500)
    assert len(plan_of(path, URL, LIMITS).faults) == 100


def test_results_come_in_the_inputs_order_whatever_order_they_came_in(tmp_path: Path) -> None:
    results = ResultLog(tmp_path)
    for index in (3, 0, 2, 1):
        results.add(index, {"n": index}, fine=index != 2, tokens=(10, index))
    results.add(3, {"n": "again"}, fine=False)
    assert [json.loads(raw)["n"] for raw in results.of(fine=True)] == [0, 1, 3]
    assert [json.loads(raw)["n"] for raw in results.of(fine=False)] == [2]
    assert (results.completed, results.failed) == (3, 1)
    assert (results.prompt_tokens, results.answer_tokens) == (40, 6)
    results.close()


def test_who_goes_on_knows_what_was_written_before_a_kill(tmp_path: Path) -> None:
    first = ResultLog(tmp_path)
    first.add(0, {"text": "价格\u2028 12"}, fine=True, tokens=(5, 2))
    first.add(1, {"n": 1}, fine=False)
    first.sync()
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b'[2,true,1,1]\t{"half')  # killed in mid-write
    second = ResultLog(tmp_path)
    assert set(second.places) == {0, 1}
    second.add(2, {"n": 2}, fine=True)
    third = ResultLog(tmp_path)
    assert (third.completed, third.failed, third.prompt_tokens) == (2, 1, 5)
    said = [json.loads(raw) for raw in third.of(fine=True)]
    assert said == [{"text": "价格\u2028 12"}, {"n": 2}]
    for log in (first, second, third):
        log.close()


async def test_a_window_widens_with_answers_and_halves_with_refusals() -> None:
    window = Window(8)
    assert window.size == 4
    for _ in range(60):
        window.answered()
    assert window.size == 8
    window.refused()
    assert window.size == 4
    for _ in range(9):
        window.refused()
    assert window.size == 1
    await window.enter()
    waiting = asyncio.create_task(window.enter())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await window.leave()
    await asyncio.wait_for(waiting, 1)
