"""Ten times what the stack can work off: how soon most is refused, what becomes of the rest.

The stack is whole: ``forebay serve`` with the tiny checkpoint. First its capacity is measured, by a
burst that is worked off. Then requests come as a Poisson process of ten times that, each with a
picture, whether answered or not; the queue is short, so most are refused. Afterwards every accepted
task is asked for until it has an answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import uvloop

from bench.door_client import Reply, at_once
from bench.door_load import about, open_loop, photo, predict_request
from bench.door_plan import DoorPlan
from bench.peers import ROOT, forebay
from bench.plan import Raw
from bench.servers import RunningServer, ServerError, running
from bench.statistics import percentile

TIMES = 10
WAITING = 100
ANSWER_TOKENS = 16
_ANSWERS_LIMIT_S = 600.0
_POLL_S = 0.1


def overload(plan: DoorPlan, part: str) -> Raw:
    """Measure once; see the module's text."""
    recipe = forebay("forebay", plan.checkpoint("tiny"), plan.folder("overload"), None)
    environment = {**recipe.environment, "FOREBAY_MAX_WAITING": str(WAITING)}
    photos = [photo(index) for index in range(plan.sizes.photos)]
    requests = [
        predict_request(one, f"What is it? ({n})", max_tokens=ANSWER_TOKENS)
        for n, one in enumerate(photos)
    ]
    with running(replace(recipe, environment=environment), plan.work / "logs") as server:
        capacity = _capacity(server, requests[: plan.sizes.answers])
        plan.say(f"{part}: the stack answers {capacity:.1f} requests a second")
        with _probed(server.url) as stalls:
            replies = uvloop.run(
                open_loop(server.url, requests, TIMES * capacity, plan.sizes.overload_s, seed=1)
            )
        accepted = [_task_id(one) for one in replies if one.status == 200]
        missing = _unanswered(server.url, accepted)
    refused = [one for one in replies if one.status == 503]
    return {
        "capacity_per_s": capacity,
        "offered_per_s": TIMES * capacity,
        "all": about(replies),
        "accepted": about([one for one in replies if one.status == 200]) if accepted else None,
        "refused": about(refused) if refused else None,
        "lost": len(missing),
        "stall": {
            "probes": len(stalls),
            **{f"p{share}_ms": percentile(stalls, share / 100) * 1000 for share in (50, 99)},
            "longest_ms": max(stalls) * 1000,
        },
    }


def _capacity(server: RunningServer, requests: Sequence[bytes]) -> float:
    """Return the answers a second while a burst is worked off, the first quarter left out."""
    task_ids = [_task_id(one) for one in at_once(server.url, requests)]
    marks: list[float] = []
    for at in (max(1, len(task_ids) // 4), len(task_ids)):
        _wait(server.url, task_ids, at)
        marks.append(time.perf_counter())
    return (len(task_ids) - max(1, len(task_ids) // 4)) / (marks[1] - marks[0])


def _task_id(reply: Reply) -> str:
    if reply.status != 200:
        raise ServerError(f"the door answered {reply.status}: {reply.body[:200]!r}")
    return str(json.loads(reply.body)["task_id"])


def _wait(url: str, task_ids: Sequence[str], count: int) -> None:
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as door:
        ended: set[str] = set()
        deadline = time.monotonic() + _ANSWERS_LIMIT_S
        while len(ended) < count:
            if time.monotonic() > deadline:
                raise ServerError(f"{len(ended)} answers of {count} in {_ANSWERS_LIMIT_S:.0f} s")
            ended |= {one for one in task_ids if one not in ended and _ended(door, one)}
            time.sleep(_POLL_S)


def _unanswered(url: str, task_ids: Sequence[str]) -> list[str]:
    """Return the tasks that have no answer in the end."""
    _wait(url, task_ids, len(task_ids))
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as door:
        return [one for one in task_ids if _result(door, one)["status"] != "success"]


def _ended(door: httpx.Client, task_id: str) -> bool:
    return bool(_result(door, task_id)["status"] != "pending")


def _result(door: httpx.Client, task_id: str) -> dict[str, Any]:
    result: dict[str, Any] = door.get("/result", params={"task_id": task_id}).json()
    return {"status": "lost", **result}


@contextmanager
def _probed(url: str) -> Iterator[list[float]]:
    """Yield a list that holds the times of the probe's answers once the block has ended."""
    probe = subprocess.Popen(
        [sys.executable, "-m", "bench.door_probe", url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    times: list[float] = []
    try:
        yield times
    finally:
        said, _ = probe.communicate("\n", timeout=60)
        times += json.loads(said)
