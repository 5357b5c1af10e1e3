"""What the benchmark programs share: the command line, the report as it grows, part after part."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from bench import report
from bench.peers import peers_home
from bench.plan import Plan, Raw

P = TypeVar("P", bound=Plan)

Save = Callable[[str, Raw], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(Generic[P]):
    """A benchmark: its parts, and how their raw figures become a summary and a table.

    Attributes:
        module: what ``python -m`` is given.
        what: a line for ``--help``.
        parts: by name, the minutes that a part takes on two quiet cores, and what measures it.
        summary: gives every key of the summary from the parts' raw figures.
        table: gives the whole report for people, in Markdown.
        packages: whose versions a figure depends on.
        rounds: how often a comparison is made unless the command line says otherwise.
        failures: what ends the program with a line instead of a traceback.
    """

    module: str
    what: str
    parts: Mapping[str, tuple[float, Callable[[P, str], Raw]]]
    summary: Callable[[Mapping[str, Raw]], report.Summary]
    table: Callable[[Raw], str]
    packages: Sequence[str]
    rounds: int
    failures: tuple[type[Exception], ...]

    def parser(self) -> argparse.ArgumentParser:
        """Return the options that every benchmark has; a program adds its own."""
        parser = argparse.ArgumentParser(prog=f"python -m {self.module}", description=self.what)
        parser.add_argument("--json", type=Path, required=True, help="where the figures go")
        some = f"some parts of: {', '.join(self.parts)}"
        parser.add_argument("--only", type=self._chosen, default=tuple(self.parts), help=some)
        parser.add_argument(
            "--quick", action="store_true", help="a smoke run; its figures say nothing"
        )
        parser.add_argument("--rounds", type=int, default=self.rounds, help="of a comparison")
        parser.add_argument("--peers-dir", type=Path, default=peers_home())
        return parser

    def _chosen(self, text: str) -> tuple[str, ...]:
        names = names_of(text)
        for name in names:
            if name not in self.parts:
                known = ", ".join(self.parts)
                raise argparse.ArgumentTypeError(f"no part {name!r}; there are {known}")
        return names

    def measure(self, options: argparse.Namespace, begin: Callable[[Path, Save], P]) -> None:
        """Measure the chosen parts, and print the table.

        Args:
            options: what :meth:`parser` read.
            begin: makes the plan from a folder for its work and from what saves a part; it raises
                one of ``failures`` when the run cannot be made here.
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # leave no server behind
        only: tuple[str, ...] = options.only
        whole = self._whole(options.json, keep=len(only) < len(self.parts))
        whole["quick"] = options.quick
        try:
            with tempfile.TemporaryDirectory(prefix="forebay-bench-") as work:
                plan = begin(
                    Path(work), lambda part, raw: self._save(options.json, whole, part, raw)
                )
                minutes = sum(self.parts[part][0] for part in only)
                takes = "a few minutes" if options.quick else f"about {minutes:.0f} minutes"
                plan.say(f"parts: {', '.join(only)}; {takes} on quiet cores")
                for part in only:
                    self._measure(plan, part)
        except self.failures as error:
            sys.exit(str(error))
        print(self.table(whole))

    def _measure(self, plan: P, part: str) -> None:
        plan.say(f"{part}: begins")
        began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        raw = self.parts[part][1](plan, part)
        seconds = time.monotonic() - began
        about = {"began": at, "seconds": round(seconds, 1), "commit": report.commit()}
        plan.save(part, {**raw, "about": about})
        plan.say(f"{part}: done in {seconds:.0f} s")

    def _whole(self, path: Path, *, keep: bool) -> Raw:
        """Return the report so far: an existing file's, when parts of it are kept."""
        parts: Raw = {}
        if keep and path.is_file():
            parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        return {
            **self.summary(parts),
            "command": shlex.join(["python", "-m", self.module, *sys.argv[1:]]),
            "machine": report.machine(self.packages),
            "parts": parts,
        }

    def _save(self, path: Path, whole: Raw, part: str, raw: Raw) -> None:
        whole["parts"][part] = raw
        whole.update(self.summary(whole["parts"]))
        report.write(path, whole, self.table)


def names_of(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas."""
    return tuple(name for name in text.split(",") if name)
