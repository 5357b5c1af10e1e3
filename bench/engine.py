"""Measures Forebay beside what users would pick instead: ``make bench-engine``.

    python -m bench.engine --peers vllm,litserve --json FILE [--only PART,PART] [--quick]

Every part's raw figures are written as they come. A part named by ``--only`` replaces that part in
an existing FILE and leaves the others, so a long run can be made in pieces; figures of one part are
always of one run. ``docs/benchmarks.md`` says what each figure is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from bench import compare, ours, report
from bench.peers import PeerMissingError, knows_quantization, peers_home, require_peers
from bench.plan import QUICK, Plan, Raw, Sizes
from bench.servers import ServerError, clean_environment
from bench.sse import ServerSaidError
from forebay.engine import SPIN_COUNT

CORE_LIMIT_S = 1200.0
FP32 = {"FOREBAY_QUANTIZATION": "none"}

Part = Callable[[Plan, str], Raw]


def _core(name: str, checkpoint: str, environment: Mapping[str, str] | None = None) -> Part:
    """Return a part that runs :mod:`bench.engine_core` in a process of its own."""

    def measure(plan: Plan, part: str) -> Raw:
        folder = plan.checkpoint(checkpoint)
        plan.say(f"{part}: in the engine alone, {folder.name}")
        out = plan.folder(part) / "figures.json"
        sizes = json.dumps(dataclasses.asdict(plan.sizes))
        extra = environment if environment and knows_quantization() else {}
        subprocess.run(
            [
                *(sys.executable, "-m", "bench.engine_core", name),
                *(str(folder), str(out), "--sizes", sizes),
            ],
            check=True,
            timeout=CORE_LIMIT_S,
            env={"GOMP_SPINCOUNT": SPIN_COUNT} | clean_environment() | dict(extra),
        )
        raw: Raw = json.loads(out.read_text(encoding="utf-8"))
        return raw

    return measure


PARTS: Mapping[str, tuple[float, Part]] = MappingProxyType(
    {
        "burst_tiny": (9, compare.tiny),
        "burst_small": (20, compare.small),
        "steps": (2, _core("steps", "small")),
        "decode": (3, _core("decode", "small")),
        "kv": (2, _core("kv", "tiny", FP32)),
        "repeat": (1, ours.repeat),
        "memory": (4, ours.memory),
    }
)
"""Every part with the minutes that it takes with two peers on two quiet cores."""


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # leave no server behind
    only = options.only or tuple(PARTS)
    whole = _whole(options.json, keep=bool(options.only))
    sizes = QUICK if options.quick else dataclasses.replace(Sizes(), rounds=options.rounds)
    try:
        require_peers(options.peers, options.peers_dir)
        with tempfile.TemporaryDirectory(prefix="forebay-bench-") as work:
            plan = Plan(
                peers=options.peers,
                home=options.peers_dir,
                work=Path(work),
                sizes=sizes,
                round_limit_s=60 * options.round_minutes,
                save=lambda part, raw: _save(options.json, whole, part, raw),
            )
            _tell(plan, only, quick=options.quick)
            whole["quick"] = options.quick
            for part in only:
                _measure(plan, part)
    except (PeerMissingError, ServerError, ServerSaidError) as error:
        sys.exit(str(error))
    print(report.table(whole))


def _measure(plan: Plan, part: str) -> None:
    plan.say(f"{part}: begins")
    began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    raw = PARTS[part][1](plan, part)
    seconds = time.monotonic() - began
    about = {"began": at, "seconds": round(seconds, 1), "commit": report.commit()}
    plan.save(part, {**raw, "about": about})
    plan.say(f"{part}: done in {seconds:.0f} s")


def _tell(plan: Plan, only: tuple[str, ...], *, quick: bool) -> None:
    """Say what will be done, how long it takes, and what this version cannot do."""
    minutes = "a few minutes" if quick else f"about {sum(PARTS[p][0] for p in only):.0f} minutes"
    plan.say(f"parts: {', '.join(only)}; peers: {', '.join(plan.peers)}; {minutes} on quiet cores")
    if not knows_quantization():
        plan.say(
            "this version has no setting `quantization`: ours runs in fp32 throughout, "
            "and int8_vs_fp32 cannot be measured"
        )


def _whole(path: Path, *, keep: bool) -> Raw:
    """Return the report so far: an existing file's, when parts of it are kept."""
    parts: Raw = {}
    if keep and path.is_file():
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
    return {
        **report.summary(parts),
        "command": shlex.join(["python", "-m", "bench.engine", *sys.argv[1:]]),
        "machine": report.machine(),
        "parts": parts,
    }


def _save(path: Path, whole: Raw, part: str, raw: Raw) -> None:
    whole["parts"][part] = raw
    whole.update(report.summary(whole["parts"]))
    report.write(path, whole)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine", description="Measure Forebay beside its peers."
    )
    names = ", ".join(PARTS)
    parser.add_argument("--peers", type=_names, default=("vllm", "litserve"), help="by name")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--only", type=_parts, help=f"some parts of: {names}")
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say nothing")
    parser.add_argument("--rounds", type=int, default=Sizes().rounds, help="of a comparison")
    parser.add_argument(
        "--round-minutes",
        type=float,
        default=17.0,
        help="no further round of a comparison begins when it would end after this",
    )
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
