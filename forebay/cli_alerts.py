"""``forebay alerts``: what fires, silences, a test of the channels, the rules for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from forebay.access.audit import deed_of_cli
from forebay.api.alerts.composition import alert_desk, alert_rules, alert_teller
from forebay.api.alerts.desk import AlertDesk
from forebay.cli_options import AsJson, DataDir, QueueUrl, Sets, settings_of
from forebay.cli_view import complaints, console, print_json
from forebay.config import Settings
from forebay.core.errors import InvalidRequestError, SilenceNotFoundError
from forebay.ops.alerts.prometheus import prometheus_rules
from forebay.ops.alerts.silences import LONGEST_S, MOST_SILENCES, Silence, new_silence_id
from forebay.ops.metrics import Metrics
from forebay.queue_here import on_queue

T = TypeVar("T")

app = typer.Typer(help="Alerts: what fires, and who is told.", no_args_is_help=True)


@app.command(name="list")
def list_command(
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """List what is pending, fires or has just ended, and the silences; exit 1 while any fires."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    found = _run(settings, lambda desk: desk.overview())
    if as_json:
        print_json(found)
    else:
        _print(found, settings.alert_language)
    raise typer.Exit(any(one["state"] == "firing" for one in found["data"]))


@app.command(name="test")
def push_test(
    channel: Annotated[
        str | None, typer.Option(help="Only this one: dingtalk, wecom, feishu, slack, ...")
    ] = None,
    sets: Sets = None,
) -> None:
    """Send a test message from this machine by the channels set up; exit 1 if one fails."""
    settings = settings_of(sets)
    teller = alert_teller(settings, alert_rules(settings), Metrics())
    if channel is not None and channel not in teller.channels:
        known = ", ".join(teller.channels) or "none"
        raise typer.BadParameter(f"no such channel is set up; there is: {known}")
    if not teller.channels:
        complaints.print("No channel is set up; docs/alerts.md says how.", markup=False)
        raise typer.Exit(1)

    async def main() -> list[tuple[str, str | None]]:
        names = [channel] if channel else teller.channels
        return [(one, await teller.test(one)) for one in names]

    results = asyncio.run(main())
    for name, reason in results:
        console.print(f"{name}: {'sent' if reason is None else reason}", markup=False)
    raise typer.Exit(any(reason is not None for _, reason in results))


@app.command()
def silence(
    minutes: Annotated[float, typer.Argument(help="For how long.", min=0.01, max=LONGEST_S / 60)],
    rule: Annotated[str, typer.Option(help="Only this rule's alerts; unset: every one.")] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="Only alerts with it, as name=value; repeatable.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; others see it.")] = "",
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Tell nobody of some alerts for a while."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    if rule and rule not in {one.name for one in alert_rules(settings)}:
        raise typer.BadParameter("no rule has this name; `forebay alerts list --json` has all")
    labels = dict(_pair(one) for one in label or [])
    now_s, deed = time.time(), deed_of_cli("alert.silence", rule or "every rule")
    until_s = now_s + minutes * 60
    made = Silence(new_silence_id(), rule, labels, until_s, reason, deed.actor, now_s)

    async def work(desk: AlertDesk) -> None:
        if not await desk.store.silence(made):
            raise InvalidRequestError(f"there are {MOST_SILENCES} silences already; end some")

    _run(settings, work, "alert.silence", made.silence_id)
    console.print(f"{made.silence_id} until {_when(made.until_s)}", markup=False)


@app.command()
def unsilence(
    silence_id: Annotated[str, typer.Argument(help="The silence's id.", metavar="ID")],
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """End a silence now."""

    async def work(desk: AlertDesk) -> None:
        if not await desk.store.unsilence(silence_id):
            raise SilenceNotFoundError(f"there is no silence {silence_id[:64]}")

    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    _run(settings, work, "alert.unsilence", silence_id)


@app.command()
def rules(
    out: Annotated[Path | None, typer.Option(help="File to write; unset: print.")] = None,
    sets: Sets = None,
) -> None:
    """Print the rules, with the settings' thresholds, in the form of Prometheus."""
    settings = settings_of(sets)
    text = prometheus_rules(alert_rules(settings), settings.alert_runbook_url)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


def _run(
    settings: Settings,
    work: Callable[[AlertDesk], Awaitable[T]],
    action: str | None = None,
    target: str = "",
) -> T:
    """Do ``work`` on the queue's alerts; what changes something is recorded as ``action``."""
    deed = None if action is None else deed_of_cli(action, target)
    return on_queue(
        settings, lambda opened: work(alert_desk(settings, opened.access, Metrics())), deed
    )


def _print(found: dict[str, Any], language: str) -> None:
    table = Table("Alert", "State", "Severity", "Since", "What")
    for one in found["data"]:
        state = f"{one['state']} (silenced)" if one["silenced"] else one["state"]
        text = one["text"].get(language, "")
        table.add_row(one["key"], state, one["severity"], _when(one["since"]), text)
    console.print(table if found["data"] else "Nothing fires.")
    for one in found["silences"]:
        what = one["rule"] or "every rule"
        console.print(
            f"{one['silence_id']}: {what} until {_when(one['until_s'])} {one['reason']}",
            markup=False,
        )


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise typer.BadParameter("--label takes name=value")
    return name, value


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
