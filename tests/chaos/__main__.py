"""``python -m tests.chaos``: faults by the hundred, and what clients saw of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tests.chaos.run import Options, Run, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every promise was kept, 1 when one was broken, 130 when interrupted."""
    given = _parser().parse_args(arguments)
    options = Options(
        tasks=given.tasks,
        faults=given.faults,
        seed=given.seed,
        clients=given.clients,
        whole=given.whole,
        demo=given.demo,
        limit_s=given.limit_s,
        garble=given.garble,
        **({"clock": False} if given.no_clock else {}),
    )
    with tempfile.TemporaryDirectory(
        prefix="forebay-chaos-", ignore_cleanup_errors=True
    ) as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        one = uvloop.run(_run_until_signal(options, folder.absolute()))
    return _report(one, given.json, given.history)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=5000, help="tasks that must be accepted")
    parser.add_argument("--faults", type=int, default=200, help="faults while they run")
    parser.add_argument("--seed", type=int, default=1, help="of the faults: which, where, how hard")
    parser.add_argument("--clients", type=int, default=64, help="clients at once")
    parser.add_argument("--whole", action="store_true", help="strike one `forebay serve`")
    parser.add_argument("--demo", action="store_true", help="have the demo model answer")
    parser.add_argument("--no-clock", action="store_true", help="leave the server's clock alone")
    parser.add_argument("--limit-s", type=float, default=0.0, help="bound of the whole run")
    parser.add_argument("--garble", type=int, default=0, help="have the n-th answer said wrong")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--history", type=Path, help="write what clients saw, a line an event")
    parser.add_argument("--keep", type=Path, help="keep the processes' data and logs here")
    return parser


async def _run_until_signal(options: Options, folder: Path) -> Run:
    """Run; on SIGINT or SIGTERM end every process and return what there is."""
    one = Run(options)
    work = asyncio.ensure_future(run(one, folder, _say))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        one.stopped_by = "a signal"
    return one


def _say(text: str) -> None:
    print(text, flush=True)


def _report(one: Run, json_file: Path | None, history_file: Path | None) -> int:
    figures = one.figures()
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    print(text)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(text + "\n", encoding="utf-8")
    if history_file is not None:
        one.history.write(history_file)
    if one.kept:
        return 0
    for violation in one.verdict().violations[:5]:
        print(f"\n{violation.kind}: {violation.about} {violation.what}")
        print("\n".join(one.history.lines_about(violation.about.split("/")[:1])))
    print(f"\nThe same faults again: {one.options.replay()}")
    return 130 if one.stopped_by == "a signal" else 1


if __name__ == "__main__":
    sys.exit(main())
