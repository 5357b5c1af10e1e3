"""Measures the door and the road behind it: ``make bench-door``.

    python -m bench.door --json FILE [--only PART,PART] [--quick]

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

from bench import door_report, report
from bench.door_overload import overload
from bench.door_plan import QUICK, DoorPlan, DoorSizes, Raw
from bench.door_predict import check_peer, predict
from bench.door_road import added, pace
from bench.peers import PeerMissingError, peers_home
from bench.servers import ServerError

PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "pillow", "redis", "torch")

PARTS: Mapping[str, tuple[float, Callable[[DoorPlan, str], Raw]]] = MappingProxyType(
    {"predict": (2, predict), "added": (1, added), "overload": (2, overload), "pace": (5, pace)}
)
"""Every part with the minutes that it takes on two quiet cores."""


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # leave no server behind
    only = options.only or tuple(PARTS)
    whole = _whole(options.json, keep=bool(options.only))
    sizes = QUICK if options.quick else dataclasses.replace(DoorSizes(), rounds=options.rounds)
    try:
        if "predict" in only:
            check_peer(options.peers_dir)
        with tempfile.TemporaryDirectory(prefix="forebay-bench-") as work:
            plan = DoorPlan(
                home=options.peers_dir,
                work=Path(work),
                sizes=sizes,
                save=lambda part, raw: _save(options.json, whole, part, raw),
            )
            minutes = "a minute" if options.quick else f"about {sum(PARTS[p][0] for p in only):.0f}"
            plan.say(f"parts: {', '.join(only)}; {minutes} minutes")
            whole["quick"] = options.quick
            for part in only:
                _measure(plan, part)
    except (PeerMissingError, ServerError) as error:
        sys.exit(str(error))
    print(door_report.table(whole))


def _measure(plan: DoorPlan, part: str) -> None:
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
        **door_report.summary(parts),
        "command": shlex.join(["python", "-m", "bench.door", *sys.argv[1:]]),
        "machine": report.machine(PACKAGES),
        "parts": parts,
    }


def _save(path: Path, whole: Raw, part: str, raw: Raw) -> None:
    whole["parts"][part] = raw
    whole.update(door_report.summary(whole["parts"]))
    report.write(path, whole, door_report.table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.door", description="Measure the door, and the road behind it."
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--only", type=_parts, help=f"some parts of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say nothing")
    parser.add_argument("--rounds", type=int, default=DoorSizes().rounds, help="of a comparison")
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
