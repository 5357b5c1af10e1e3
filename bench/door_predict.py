"""``POST /predict`` with a JPEG of 100 KB: our door beside Flask and a list in Redis.

Both have the same queue server before them, one that runs for the round alone, and nobody works
tasks off. A round sends ``requests`` by 50 clients, each on a connection of its own: once all of
one picture, as ``ab -p`` sends it, and once of pictures that differ. Then bursts at once.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.door_client import at_once, closed
from bench.door_load import about, photo, predict_request
from bench.door_plan import DoorPlan
from bench.peers import ROOT, PeerMissingError
from bench.plan import Raw
from bench.queue_server import QueueServer, queue_server
from bench.servers import Recipe, RunningServer, ServerError, running
from scripts.running_stack import free_port

CLIENTS = 50
OURS, FLASK = "forebay", "flask"
MOST_WAITING = 10**6
OPEN_S = 120.0


def predict(plan: DoorPlan, part: str) -> Raw:
    """Measure both doors in turn, round after round."""
    check_peer(plan.home)
    sizes = plan.sizes
    photos = [photo(index) for index in range(sizes.photos)]
    same = [predict_request(photos[0], f"What is it? ({n})") for n in range(sizes.requests)]
    apart = [predict_request(one, f"What is it? ({n})") for n, one in enumerate(photos)]
    burst = [same[n % len(same)] for n in range(sizes.burst)]
    raw: Raw = {
        "photo_bytes": len(photos[0]),
        "api_processes": plan.api_processes,
        "rounds": [],
    }
    for number in range(sizes.rounds):
        result: Raw = {}
        raw["rounds"].append(result)
        for name in (OURS, FLASK) if number % 2 == 0 else (FLASK, OURS):
            with _door(plan, name) as door:
                result[name] = _measure(door, same, apart, burst)
            rates = {kind: one["accepted_per_s"] for kind, one in result[name].items()}
            plan.say(f"{part}: round {number + 1}, {name}: {_line(rates)}")
            plan.save(part, raw)
    return raw


def _line(rates: dict[str, float]) -> str:
    return ", ".join(f"{kind} {rate:.0f}/s" for kind, rate in rates.items())


def _measure(
    door: RunningServer, same: Sequence[bytes], apart: Sequence[bytes], burst: Sequence[bytes]
) -> Raw:
    closed(door.url, same[:CLIENTS], 4)  # warm
    result: Raw = {}
    for kind, requests in (("same", same), ("apart", apart)):
        before = _cpu_s(door)
        result[kind] = about(closed(door.url, requests, CLIENTS))
        result[kind]["cpu_ms_each"] = (_cpu_s(door) - before) / len(requests) * 1000
    result["burst_50"] = about(at_once(door.url, burst[:50]))
    result["burst"] = about(at_once(door.url, burst))
    return result


def _cpu_s(door: RunningServer) -> float:
    """Return the processor time of the door and its decoders so far; the queue's is not in it."""
    times = [one.cpu_times() for one in door.tree()]
    return sum(one.user + one.system for one in times)


def check_peer(home: Path) -> None:
    """Raise PeerMissingError unless Flask's environment is there."""
    if not flask_python(home).is_file():
        raise PeerMissingError("flask is not installed: make peers ARGS=door")


def flask_python(home: Path) -> Path:
    """Return the interpreter of Flask's environment."""
    return home / "door" / "bin" / "python"


@contextmanager
def _door(plan: DoorPlan, name: str) -> Iterator[RunningServer]:
    folder = plan.folder(name)
    with queue_server(folder / "queue") as server:
        count = plan.api_processes
        ours = name == OURS
        recipe = _ours(folder, server, count) if ours else _flask(plan.home, folder, server)
        with running(recipe, folder / "logs") as door:
            if ours:
                _await_all(door, count)
            yield door


def _await_all(door: RunningServer, count: int) -> None:
    """Return when every API process at the port has said what it measures. Raises ServerError."""
    until = time.monotonic() + OPEN_S
    while time.monotonic() < until:
        text = httpx.get(f"{door.url}/metrics", trust_env=False, timeout=OPEN_S).text
        if len(set(re.findall(r'process="(api[^"]*)"', text))) >= count:
            return
        time.sleep(0.1)
    raise ServerError(f"{count} API processes were not there after {OPEN_S:.0f} s")


def _ours(folder: Path, server: QueueServer, count: int) -> Recipe:
    port = free_port()
    options = ("--port", str(port), "--set", f"api_processes={count}")
    command = (sys.executable, "-m", "forebay", "api", *options)
    environment = {
        "FOREBAY_QUEUE_URL": server.url("unix"),
        "FOREBAY_DATA_DIR": str(folder / "data"),
        "FOREBAY_MAX_WAITING": str(MOST_WAITING),
        "FOREBAY_MAX_WAITING_TOKENS": str(MOST_WAITING * 10_000),
    }
    return Recipe(OURS, command, port, ready_path="/healthz", environment=environment)


def _flask(home: Path, folder: Path, server: QueueServer) -> Recipe:
    port, uploads = free_port(), folder / "uploads"
    uploads.mkdir()
    environment = {
        "QUEUE_URL": server.url("tcp"),
        "UPLOADS": str(uploads),
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    command = (str(flask_python(home)), "-m", "bench.peer_servers.flask_redis")
    return Recipe(FLASK, command, port, environment=environment)


def ratio(raw: Raw | None, kind: str) -> float | None:
    """Return the median over rounds of our rate over Flask's."""
    rounds = [one for one in (raw or {}).get("rounds", ()) if OURS in one and FLASK in one]
    ratios = sorted(
        one[OURS][kind]["accepted_per_s"] / one[FLASK][kind]["accepted_per_s"]
        for one in rounds
        if one[FLASK][kind]["accepted_per_s"]
    )
    return ratios[len(ratios) // 2] if ratios else None
