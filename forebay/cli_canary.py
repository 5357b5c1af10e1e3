"""``forebay canary``: the share of the tasks that canaries get, how they do, the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from forebay.access.audit import deed_of_cli
from forebay.api.canary.composition import canary_desk
from forebay.api.canary.desk import CanaryDesk
from forebay.cli_options import AsJson, DataDir, QueueUrl, Sets, settings_of
from forebay.cli_view import console, print_json, when
from forebay.config import Settings
from forebay.queue_here import on_queue

T = TypeVar("T")

app = typer.Typer(
    help="Canaries: workers that run something new on a share of the tasks.",
    no_args_is_help=True,
)


@app.command()
def show(
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Show the share, and how both groups did lately."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    _print(_run(settings, lambda desk: desk.overview()), as_json=as_json)


@app.command(name="set")
def set_share(
    share: Annotated[float, typer.Argument(help="0: none; 1: all.", min=0, max=1)],
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Set the share of the tasks that canaries get."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    actor = deed_of_cli("canary.set", "").actor
    told = _run(settings, lambda desk: desk.set_share(share, actor), f"{share:g}")
    _print(told, as_json=as_json)


@app.command()
def log(
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """List the last changes of the share: who set it, and what took it back."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    found = _run(settings, lambda desk: desk.log(count))
    if as_json:
        print_json(found)
        return
    table = Table("When", "Share", "Before", "By", "Why")
    for one in found["data"]:
        share, before = f"{one['share']:g}", f"{one['before']:g}"
        table.add_row(when(one["at"]), share, before, one["by"], one["reason"])
    console.print(table if found["data"] else "The share was never set.")


def _run(
    settings: Settings,
    work: Callable[[CanaryDesk], Awaitable[T]],
    target: str | None = None,
) -> T:
    """Do ``work`` on the queue's canaries; with a ``target`` it is a deed, and recorded."""
    deed = None if target is None else deed_of_cli("canary.set", target)
    return on_queue(settings, lambda opened: work(canary_desk(settings, opened)), deed)


def _print(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    taken = "" if told["taken"] is None else f"; canaries had {told['taken']:.1%} lately"
    runs = "" if told["runs"] is None else f", running {told['runs'].get('model')}"
    console.print(
        f"Share {told['share']:.1%}{taken}. Workers: {told['workers']['stable']} stable, "
        f"{told['workers']['canary']} canary{runs}.",
        markup=False,
    )
    if told["share"] > 0 and not told["workers"]["canary"]:
        console.print("No canary is there to take it: see docs/canary.md.", markup=False)
    if told["rolled_back"]:
        console.print(f"Rolled back: {told['last']['reason']}.", markup=False)
    table = Table("Group", "Tasks", "Failed", "Empty", "First token P95", "Answer P95")
    for group in ("stable", "canary"):
        one = told["figures"][group]
        times = [_seconds(one[name]) for name in ("first_token_p95_s", "answer_p95_s")]
        failed = str(one["failed"] + one["lost"])
        table.add_row(group, str(one["tasks"]), failed, str(one["empty"]), *times)
    console.print(table)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} s"
