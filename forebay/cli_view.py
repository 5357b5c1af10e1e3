"""What the command line shows: the start's steps, the burst's progress and its table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from forebay.demo import BurstReport, Fate, Shot
from forebay.findings import Finding, Verdict
from forebay.health_report import HealthReport

SHOWN_ANSWERS: Final = 8
LONGEST_SHOWN: Final = 60

console = Console(highlight=False, emoji=False)  # ":100:" in an answer is text, not a picture
complaints = Console(stderr=True, highlight=False, emoji=False)

_MARKS: Final = {
    Verdict.GOOD: "[green]good[/]",
    Verdict.WARN: "[yellow]warn[/]",
    Verdict.BAD: "[red]bad [/]",
}


def print_json(content: Any) -> None:
    """Print what a program reads, as it is: no colours, no wrapping."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def when(seconds: float) -> str:
    """Return a time, in seconds since the epoch, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class StartSteps:
    """Prints each step of a start or stop with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, step: str) -> None:
        """Print one step."""
        console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {step}")


class BurstProgress:
    """The live bar of a burst."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("answers", total=total, failed="")
        self._failed = 0

    def end(self, shot: Shot) -> None:
        """Count one request that has come to its end."""
        self._failed += shot.fate is not Fate.ANSWERED
        failed = f"[red]{self._failed} failed" if self._failed else ""
        self._progress.update(self._task, advance=1, failed=failed)


@contextmanager
def burst_progress(total: int) -> Iterator[BurstProgress]:
    """Show a live bar while the block runs."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield BurstProgress(progress, total)


def print_report(report: BurstReport, worker_peak_mb: float) -> None:
    """Print the burst's figures, and a few answers beside their pictures' names."""
    times = report.answer_times()
    figures = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for fate in Fate:
        count = report.count(fate)
        bad = count > 0 and fate is not Fate.ANSWERED
        figures.add_row(fate.value, f"[red]{count}[/]" if bad else str(count))
    figures.add_row("right", f"{report.right} of {len(report.shots)}")
    if times:
        figures.add_row("first / last answer", f"{times[0]:.2f} s / {times[-1]:.2f} s")
    figures.add_row(
        "P50 / P99", f"{report.percentile(0.50):.2f} s / {report.percentile(0.99):.2f} s"
    )
    figures.add_row("peak worker memory", f"{worker_peak_mb:.0f} MB")
    console.print(figures)
    console.print(_answers(report))


def _answers(report: BurstReport) -> Table:
    table = Table("picture", "question", "answer", "", box=None, padding=(0, 2, 0, 0))
    stride = max(1, len(report.shots) // SHOWN_ANSWERS)
    for shot in report.shots[::stride][:SHOWN_ANSWERS]:
        mark = "[green]right[/]" if shot.right else "[yellow]wrong[/]"
        if shot.fate is not Fate.ANSWERED:
            mark = f"[red]{shot.fate.value}[/]"
        table.add_row(
            _cell(shot.sample.path.name), _cell(shot.sample.question), _cell(shot.text), mark
        )
    return table


def _cell(text: str) -> Text:
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 1] + "…")


def print_health(report: HealthReport) -> None:
    """Print a health report in a line or two."""
    if report.service_healthy:
        console.print(f"[green]healthy[/]  the model answered in {report.answer_ms} ms")
    else:
        console.print("[red]unhealthy[/]", end="  ")
        console.print(report.reason, markup=False, soft_wrap=True)
    gpu = "none" if report.gpu_load is None else f"{report.gpu_load:.0f}%"
    console.print(
        f"GPU {gpu}  CPU {report.cpu_percent:.0f}%  memory {report.memory_used_percent:.0f}%",
        style="dim",
    )


def print_findings(findings: list[Finding]) -> None:
    """Print the doctor's findings, each mend under what it mends."""
    for one in findings:
        console.print(f"{_MARKS[one.verdict]}  {one.check:<8}", end="")
        console.print(one.found, markup=False, soft_wrap=True)
        if one.mend:
            console.print(f"                mend: {one.mend}", markup=False, soft_wrap=True)
