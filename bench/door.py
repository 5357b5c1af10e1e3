"""Measures the door and the road behind it: ``make bench-door``.

    python -m bench.door --json FILE [--only PART,PART] [--quick] [--api-processes N]

Every part's raw figures are written as they come. A part named by ``--only`` replaces that part in
an existing FILE and leaves the others. ``docs/benchmarks.md`` says what each figure is.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench import door_report
from bench.door_overload import overload
from bench.door_plan import QUICK, DoorPlan, DoorSizes
from bench.door_predict import check_peer, predict
from bench.door_road import added, pace
from bench.peers import PeerMissingError
from bench.program import Program, Save
from bench.servers import ServerError

PROGRAM: Program[DoorPlan] = Program(
    module="bench.door",
    what="Measure the door, and the road behind it.",
    parts={
        "predict": (2, predict),
        "added": (1, added),
        "overload": (2, overload),
        "pace": (5, pace),
    },
    summary=door_report.summary,
    table=door_report.table,
    packages=("fastapi", "uvicorn", "uvloop", "httptools", "pillow", "redis", "torch"),
    rounds=DoorSizes().rounds,
    failures=(PeerMissingError, ServerError),
)


def main() -> None:
    """Measure what the command line asks for."""
    parser = PROGRAM.parser()
    doors = "of ours, at one port, in the part `predict`"
    parser.add_argument("--api-processes", type=int, default=1, help=doors)
    options = parser.parse_args()
    sizes = QUICK if options.quick else dataclasses.replace(DoorSizes(), rounds=options.rounds)

    def begin(work: Path, save: Save) -> DoorPlan:
        if "predict" in options.only:
            check_peer(options.peers_dir)
        return DoorPlan(
            home=options.peers_dir,
            work=work,
            sizes=sizes,
            save=save,
            api_processes=options.api_processes,
        )

    PROGRAM.measure(options, begin)


if __name__ == "__main__":
    main()
