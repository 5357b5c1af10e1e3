"""Measures Forebay beside what users would pick instead: ``make bench-engine``.

    python -m bench.engine --peers vllm,litserve --json FILE [--only PART,PART] [--quick]

Every part's raw figures are written as they come. A part named by ``--only`` replaces that part in
an existing FILE and leaves the others, so a long run can be made in pieces; figures of one part are
always of one run. ``docs/benchmarks.md`` says what each figure is.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import compare, engine_report, ours
from bench.engine_plan import QUICK, EnginePlan, EngineSizes
from bench.peers import PeerMissingError, knows_quantization, require_peers
from bench.plan import Raw
from bench.program import Program, Save, names_of
from bench.servers import ServerError, clean_environment
from bench.sse import ServerSaidError
from forebay.engine import SPIN_COUNT

CORE_LIMIT_S = 1200.0
FP32 = {"FOREBAY_QUANTIZATION": "none"}

Part = Callable[[EnginePlan, str], Raw]


def _core(name: str, checkpoint: str, environment: Mapping[str, str] | None = None) -> Part:
    """Return a part that runs :mod:`bench.engine_core` in a process of its own."""

    def measure(plan: EnginePlan, part: str) -> Raw:
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


PROGRAM: Program[EnginePlan] = Program(
    module="bench.engine",
    what="Measure Forebay beside its peers.",
    parts={
        "burst_tiny": (9, compare.tiny),
        "burst_small": (20, compare.small),
        "steps": (2, _core("steps", "small")),
        "decode": (3, _core("decode", "small")),
        "kv": (2, _core("kv", "tiny", FP32)),
        "repeat": (1, ours.repeat),
        "memory": (4, ours.memory),
    },
    summary=engine_report.summary,
    table=engine_report.table,
    packages=("torch", "numpy", "tokenizers", "pillow"),
    rounds=EngineSizes().rounds,
    failures=(PeerMissingError, ServerError, ServerSaidError),
)


def main() -> None:
    """Measure what the command line asks for."""
    parser = PROGRAM.parser()
    parser.add_argument("--peers", type=names_of, default=("vllm", "litserve"), help="by name")
    parser.add_argument(
        "--round-minutes",
        type=float,
        default=17.0,
        help="no further round of a comparison begins when it would end after this",
    )
    options = parser.parse_args()
    sizes = QUICK if options.quick else dataclasses.replace(EngineSizes(), rounds=options.rounds)

    def begin(work: Path, save: Save) -> EnginePlan:
        require_peers(options.peers, options.peers_dir)
        plan = EnginePlan(
            peers=options.peers,
            home=options.peers_dir,
            work=work,
            sizes=sizes,
            round_limit_s=60 * options.round_minutes,
            save=save,
        )
        _tell_lacks(plan)
        return plan

    PROGRAM.measure(options, begin)


def _tell_lacks(plan: EnginePlan) -> None:
    """Say what the measured version cannot do."""
    if not knows_quantization():
        plan.say(
            "this version has no setting `quantization`: ours runs in fp32 throughout, "
            "and int8_vs_fp32 cannot be measured"
        )


if __name__ == "__main__":
    main()
