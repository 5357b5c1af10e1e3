"""Measures what open consoles cost the API: ``make bench-console``.

    python -m bench.console --json FILE [--consoles 20] [--seconds 30] [--quick]

One API process before a queue's server of its own, with the figures of a day in it and two workers
that report. Its CPU time is taken without a console and with N: each opens the stream, asks once
for the series, and then polls lists as the page does. The readers are a process of their own, so
their work is not counted, though on a small machine it is in the way.
``docs/benchmarks.md`` says what each figure is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
from redis.asyncio import Redis

from bench import report
from bench.servers import Recipe, RunningServer, ServerError, clean_environment, running
from forebay.core.engine_load import EngineLoad
from forebay.ops.live.columns import KEYS
from forebay.ops.live.members import WorkerCard, WorkerNow, worker_says
from forebay.ops.live.packing import pack
from forebay.ops.live.spread import Spread
from forebay.ops.resources import MachineReading
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.fleet import Fleet
from forebay.queue.live import COARSE_POINTS, COARSE_STEP_S, FINE_POINTS
from forebay.queue.schema import KEY_NAMES, Keys, access_name
from scripts.running_stack import free_port

Raw = dict[str, Any]

PACKAGES: Final = ("fastapi", "uvicorn", "uvloop", "redis")
TARGET: Final = "to be below 3%"
WORKERS: Final = 2
SETTLE_S: Final = 3.0
ROUNDS: Final = 3
QUEUE: Final = "main"


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    whole: Raw = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": report.commit(),
        "machine": report.machine(PACKAGES),
        "consoles": options.consoles,
        "seconds": options.seconds,
        "quick": options.quick,
    }
    try:
        with tempfile.TemporaryDirectory(prefix="forebay-bench-") as work:
            whole |= asyncio.run(_measure(Path(work), options.consoles, options.seconds))
    except ServerError as error:
        sys.exit(str(error))
    report.write(options.json, whole, table)
    print(table(whole))


def share_per_console(whole: Raw) -> float:
    """Return the percentage of one processor that each console costs the API, in the median.

    A console reads a point a second. Where the machine was too busy for that, the cost is of the
    points that were read, as if they had come in time.
    """
    return statistics.median(_share(one) for one in whole["rounds"])


def _share(one: Raw) -> float:
    none, some = one["none"], one["open"]
    more_s = some["cpu_s"] - none["cpu_s"] * some["s"] / none["s"]
    return float(100 * more_s / some["points"]) if some["points"] else math.nan


def table(whole: Raw) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| round | API without a console | with all | each console | points read of those due |",
        "|---|---|---|---|---|",
    ]
    for at, one in enumerate(whole["rounds"]):
        none, some = (100 * one[name]["cpu_s"] / one[name]["s"] for name in ("none", "open"))
        read = one["open"]["points"] / (whole["consoles"] * one["open"]["s"])
        lines.append(f"| {at + 1} | {none:.1f}% | {some:.1f}% | {_share(one):.2f}% | {read:.0%} |")
    share = share_per_console(whole)
    lines += ["", f"{whole['consoles']} consoles: {share:.2f}% of one processor each ({TARGET})."]
    return "\n".join(lines) + "\n"


async def _measure(work: Path, consoles: int, seconds: float) -> Raw:
    with EmbeddedValkey(work / "queue") as valkey:
        port = free_port()
        environment = {
            "FOREBAY_QUEUE_URL": valkey.url,
            "FOREBAY_DATA_DIR": str(work / "data"),
            "FOREBAY_LOG_LEVEL": "warning",
        }
        command = (sys.executable, "-m", "forebay", "api", "--port", str(port))
        recipe = Recipe("api", command, port, ready_path="/healthz", environment=environment)
        redis = connect(valkey.url)
        try:
            await _fill(redis)
            with running(recipe, work / "logs") as server:
                key = _admin_key(environment)
                async with _reporting(Fleet(redis, QUEUE)):
                    return {"rounds": await _rounds(server, key, consoles, seconds)}
        finally:
            await redis.aclose()


async def _rounds(server: RunningServer, key: str, consoles: int, seconds: float) -> list[Raw]:
    found = []
    for _ in range(ROUNDS):
        none = await _used(server, seconds)
        with _readers(server.url, key, consoles) as readers:
            await asyncio.sleep(SETTLE_S)
            readers.stdin.write(b"\n")
            readers.stdin.flush()
            some = await _used(server, seconds)
            readers.stdin.close()
            told = json.loads(await asyncio.to_thread(readers.stdout.read))
        found.append({"none": none, "open": {**some, **told}})
    return found


async def _used(server: RunningServer, seconds: float) -> Raw:
    """Return the CPU time of the API process while the time passes."""
    process = psutil.Process(server.process.pid)
    before, began = process.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return {"cpu_s": spent, "s": time.monotonic() - began}


@contextmanager
def _readers(url: str, key: str, consoles: int) -> Iterator[Any]:
    """Open consoles in a process of their own, until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.console_readers", url, str(consoles)],
        env=clean_environment() | {"CONSOLE_KEY": key},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _admin_key(environment: dict[str, str]) -> str:
    """Make an administrator's key where the API finds it."""
    made = subprocess.run(
        [sys.executable, "-m", "forebay", "keys", "create", "bench", "--scope", "admin", "--json"],
        env=clean_environment() | environment,
        capture_output=True,
        check=True,
    )
    return str(json.loads(made.stdout)["key"])


async def _fill(redis: Redis) -> None:
    """Write the figures of half an hour and of a day, as they would be there."""
    prefix, now_s, draw = Keys(access_name(QUEUE)).prefix, time.time() - 1, random.Random(5)
    for ring, most, step_s in (
        ("live", FINE_POINTS, 1),
        ("live_coarse", COARSE_POINTS, COARSE_STEP_S),
    ):
        pipe = redis.pipeline(transaction=False)
        for at in range(most, 0, -1):
            point = pack({key: draw.random() * 100 for key in KEYS})
            pipe.xadd(
                prefix + KEY_NAMES[ring], {"p": point}, id=f"{int((now_s - at * step_s) * 1000)}-0"
            )
        await pipe.execute()


@asynccontextmanager
async def _reporting(fleet: Fleet) -> AsyncIterator[None]:
    """Have workers report each second, as they do."""

    async def report() -> None:
        while True:
            for at in range(WORKERS):
                await fleet.report(f"worker-{at}", _says(at))
            await asyncio.sleep(1)

    reporting = asyncio.create_task(report())
    try:
        yield
    finally:
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)


def _says(at: int) -> dict[str, Any]:
    spread = Spread()
    for _ in range(100):
        spread.see(random.random())
    card = WorkerCard("bench", 1000 + at, time.time(), "m", "0", "cpu", "int8")
    times = dict.fromkeys(("ttft", "tpot", "latency"), spread.counts)
    now = WorkerNow("ready", 0, 0, 0, 0, 10**9, 0.0, EngineLoad(max_running=16), times)
    return worker_says(card, now, MachineReading("bench", 0.5, 0.5, 0.5))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="file for the figures")
    parser.add_argument("--consoles", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of six runs")
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say nothing")
    options = parser.parse_args()
    if options.quick:
        options.consoles, options.seconds = 3, 2.0
    return options


if __name__ == "__main__":
    main()
