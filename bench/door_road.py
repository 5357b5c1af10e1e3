"""What the road (door, queue, stream) adds to a request, and what it takes of the engine's pace.

``added``: the API and a worker whose engine answers at once, so that a request's whole time is the
road's. Requests are streamed chats, one after the other on an idle system, each about a picture of
its own; and the same without a picture.

``pace``: a burst through ``forebay serve``, and the same requests in the engine alone, in a process
that has nothing else to do. The engine's time starts with its pictures as the road stores them.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench.client import ANSWER_TOKENS, QUESTIONS, Target, burst, takes_fixed_length
from bench.door_plan import DoorPlan
from bench.peers import ROOT, forebay
from bench.pictures import picture
from bench.plan import Raw
from bench.queue_server import queue_server
from bench.servers import Recipe, RunningServer, clean_environment, running, stop
from bench.statistics import Answer, percentile
from forebay.engine import SPIN_COUNT
from scripts.running_stack import free_port

_WARM_UP = 20
_PICTURES = 10_000


def added(plan: DoorPlan, part: str) -> Raw:
    """Measure the road alone."""
    folder = plan.folder("road")
    with queue_server(folder / "queue") as server, _door(folder, server.unix) as door:
        raw: Raw = {}
        for kind in ("picture", "text"):
            bodies = [_chat(n, kind) for n in range(_WARM_UP + plan.sizes.singles)]
            seconds = asyncio.run(_one_by_one(door.url, bodies))[_WARM_UP:]
            raw[kind] = {
                "requests": len(seconds),
                **{f"p{share}_ms": percentile(seconds, share / 100) * 1000 for share in (50, 99)},
            }
            plan.say(f"{part}: {kind}: {raw[kind]['p50_ms']:.1f} ms, P99 {raw[kind]['p99_ms']:.1f}")
            plan.save(part, raw)
    return raw


def _chat(number: int, kind: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": str(number)}]
    if kind == "picture":
        letters = base64.b64encode(picture(_PICTURES + number)).decode()
        url = f"data:image/jpeg;base64,{letters}"
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return {
        "model": "glm-4v-flash",
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "max_tokens": 8,
    }


async def _one_by_one(url: str, bodies: Sequence[dict[str, Any]]) -> list[float]:
    """Return the time of each request until its stream ended."""
    seconds = []
    headers = {"Cache-Control": "no-store", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as door:
        for body in [json.dumps(body).encode() for body in bodies]:
            began = time.perf_counter()
            reply = await door.post("/v1/chat/completions", content=body, headers=headers)
            seconds.append(time.perf_counter() - began)
            reply.raise_for_status()
    return seconds


@contextmanager
def _door(folder: Path, queue_url: str) -> Iterator[RunningServer]:
    """Run the API and the worker of the instant engine."""
    port = free_port()
    environment = {"FOREBAY_QUEUE_URL": queue_url, "FOREBAY_DATA_DIR": str(folder / "data")}
    command = (sys.executable, "-m", "forebay", "api", "--port", str(port))
    recipe = Recipe("road", command, port, ready_path="/healthz", environment=environment)
    with running(recipe, folder / "logs") as door, (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "bench.instant_worker"],
            cwd=ROOT,
            env=clean_environment() | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield door
        finally:
            stop(worker)


def pace(plan: DoorPlan, part: str) -> Raw:
    """Measure a burst through the road and in the engine alone, in turn."""
    count = plan.sizes.answers
    raw: Raw = {"requests": count, "answer_tokens": ANSWER_TOKENS, "rounds": []}
    recipe = forebay("forebay", plan.checkpoint("small"), plan.folder("pace"), None)
    with running(recipe, plan.work / "logs") as server:
        target = Target(server.url, recipe.model)
        fixed = asyncio.run(takes_fixed_length(target))
        target = dataclasses.replace(target, fixed_length=fixed)
        for number in range(plan.sizes.rounds):
            first = (number + 1) * 1000
            road = uvloop.run(burst(target, target.bodies(first, count)))
            alone = _alone(plan, first, count)
            raw["rounds"].append({"road_s": _whole(road), "engine_s": alone["total_s"]})
            plan.say(f"{part}: round {number + 1}: {raw['rounds'][-1]}")
            plan.save(part, raw)
    return raw


def _whole(answers: Sequence[Answer]) -> float:
    began = min(one.began for one in answers)
    failed = [one.error for one in answers if one.error is not None]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed: {failed[0]}")
    return max(one.began + one.latency for one in answers) - began


def _alone(plan: DoorPlan, first: int, count: int) -> Raw:
    """Run the burst in a process that has the engine alone."""
    out = plan.folder("engine") / "figures.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "bench.door_engine", str(plan.checkpoint("small"))),
            *(str(first), str(count), str(out)),
        ],
        check=True,
        cwd=ROOT,
        env={"GOMP_SPINCOUNT": SPIN_COUNT} | clean_environment(),
    )
    raw: Raw = json.loads(out.read_text(encoding="utf-8"))
    return raw


def questions(first: int, count: int) -> list[str]:
    """Return the questions that ``Target.bodies`` asks."""
    return [
        f"{QUESTIONS[index % len(QUESTIONS)]} ({index})" for index in range(first, first + count)
    ]
