"""``forebay log-level``: how much a running queue's processes log, for a while."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, cast

import typer

from forebay.access.audit import AuditTrail, deed_of_cli
from forebay.cli_options import DataDir, QueueUrl, Sets, settings_of
from forebay.cli_view import console, when
from forebay.config import Settings
from forebay.ops.log_level import LONGEST_S, Level, LogLevels
from forebay.queue_here import opened_queue


class Wanted(StrEnum):
    """What may be asked for. ``CONFIGURED``: what the settings say."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CONFIGURED = "configured"


def log_level(
    level: Annotated[
        Wanted | None, typer.Argument(help="Least level to log; none: show the present one.")
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", help="For how long.", min=0.02, max=LONGEST_S / 60)
    ] = 10,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Show or set how much the API and the workers log; it falls back by itself."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    console.print(asyncio.run(_work(settings, level, minutes * 60)), markup=False)


async def _work(settings: Settings, level: Wanted | None, for_s: float) -> str:
    async with opened_queue(settings) as opened:
        levels = LogLevels(opened.access, settings.queue_name)
        if level is not None:
            deed = deed_of_cli("log.level", level.value)
            async with AuditTrail(opened.access, settings.queue_name).recorded(deed):
                if level is Wanted.CONFIGURED:
                    await levels.end()
                else:
                    await levels.want(cast("Level", level.value), for_s, deed.actor)
        found = await levels.wanted()
    if found is None:
        return f"{settings.log_level}, as configured"
    wanted, _ = found
    return f"{wanted.level} until {when(wanted.until_s)}, by {wanted.by}"
