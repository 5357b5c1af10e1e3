"""``forebay top``: the console in a terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console

from forebay.cli_options import Sets, settings_of
from forebay.top.feed import AwayError, TopError
from forebay.top.run import run_top
from forebay.top.words import language_of
from forebay.worker.ports import local_url

_COLUMNS, _LINES = 80, 24
"""Of a frame that goes into a file or a pipe."""


def top(
    url: Annotated[
        str | None, typer.Option(help="A running server; unset: this machine's.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one look as JSON and end.")
    ] = False,
    sets: Sets = None,
) -> None:
    """Watch a server in the terminal; with --once or --json exit 1 while its light is red.

    Needs a key with the scope admin: FOREBAY_API_KEY, api_key or api_key_file.
    """
    settings = settings_of(sets)
    console = _console(once)
    if not (once or as_json or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise typer.BadParameter("this is no terminal: give --once or --json")
    place = (url or local_url(settings.host, settings.port)).rstrip("/")
    key = settings.secret_of("api_key")
    showing = run_top(place, key, console, language_of(), once=once, as_json=as_json)
    try:
        color = asyncio.run(showing)
    except KeyboardInterrupt:
        return
    except AwayError as error:
        raise TopError(f"no answer from {place}: {error}") from error
    if once or as_json:
        raise typer.Exit(color == "red")


def _console(once: bool) -> Console:
    if once and not sys.stdout.isatty():
        return Console(width=_COLUMNS, height=_LINES, highlight=False, emoji=False)
    return Console(highlight=False, emoji=False)
