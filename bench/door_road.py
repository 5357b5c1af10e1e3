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
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.client import ANSWER_TOKENS, QUESTIONS, Target, takes_fixed_length
from bench.door_client import Reply, at_once
from bench.door_load import http_post
from bench.door_plan import DoorPlan
from bench.peers import ROOT, forebay
from bench.pictures import picture
from bench.plan import Raw
from bench.queue_server import queue_server
from bench.servers import Recipe, RunningServer, ServerError, clean_environment, running, stop
from bench.statistics import percentile
from forebay.engine import SPIN_COUNT
from scripts.running_stack import free_port

_CHAT_PATH = "/v1/chat/completions"
_JSON = "application/json"
_CHAT_HEADERS = {"Cache-Control": "no-store", "Content-Type": _JSON}
_DONE = b"data: [DONE]\n\n"
WARM_UP_FROM, WARM_UP = 900_000, 4
"""Pictures of a burst before those that count, for the road and for the engine alone."""

_WARM_UP = 20
_PICTURES = 10_000


def added(plan: DoorPlan, part: str) -> Raw:
    """Measure the road alone."""
    folder = plan.folder("road")
    with queue_server(folder / "queue") as server, _door(folder, server.unix) as door:
        raw: Raw = {}
        for kind in ("picture", "text"):
            bodies = [_chat(n, kind) for n in range(_WARM_UP + plan.sizes.singles)]
            seconds = _one_by_one(door.url, bodies)[_WARM_UP:]
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


def _one_by_one(url: str, bodies: Sequence[dict[str, Any]]) -> list[float]:
    """Return the time of each request until its stream ended, on one connection that is kept."""
    seconds = []
    door = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    for body in [json.dumps(body).encode() for body in bodies]:
        began = time.perf_counter()
        door.request("POST", _CHAT_PATH, body, _CHAT_HEADERS)
        reply = door.getresponse()
        said = reply.read()
        seconds.append(time.perf_counter() - began)
        if reply.status != 200 or not said.endswith(_DONE):
            raise ServerError(f"the door answered {reply.status}: {said[-200:]!r}")
    door.close()
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
        _whole(at_once(server.url, _posts(target, WARM_UP_FROM, WARM_UP)))  # as the engine alone
        for number in range(plan.sizes.rounds):
            first = (number + 1) * 1000
            road_s = _whole(at_once(server.url, _posts(target, first, count)))
            alone = _alone(plan, first, count)
            raw["rounds"].append({"road_s": road_s, "engine_s": alone["total_s"]})
            plan.say(f"{part}: round {number + 1}: {raw['rounds'][-1]}")
            plan.save(part, raw)
    return raw


def _posts(target: Target, first: int, count: int) -> list[bytes]:
    return [http_post(_CHAT_PATH, _JSON, body) for body in target.bodies(first, count)]


def _whole(replies: Sequence[Reply]) -> float:
    """Return the time from the first request to the last answer's end."""
    failed = [one for one in replies if one.status != 200 or _DONE not in one.body]
    if failed:
        raise ServerError(f"{len(failed)} requests failed: {failed[0].body[-300:]!r}")
    return max(one.began + one.seconds for one in replies) - min(one.began for one in replies)


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
