"""Figures, for administrators: now, over time, and as they come."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from forebay.api import sse
from forebay.api.admin_deeds import private
from forebay.api.console.csv_form import TABLE_DOCS, Format, FormatOf, table
from forebay.api.console.opening import desk_of
from forebay.api.dependencies import AdminOf, ServicesOf
from forebay.core.errors import NotReadyError
from forebay.ops.live.columns import KEYS, UNITS
from forebay.ops.live.ring import Rings, Series

router = APIRouter(prefix="/v1/admin", tags=["administration"])

DAY_S = 86_400
_COLUMNS = ("at", *KEYS)
_STREAM_DOCS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


@router.get("/now")
async def now(services: ServicesOf, caller: AdminOf) -> Response:
    """Return the newest figures and the traffic light with its reasons; one point a second."""
    del caller
    newest = desk_of(services).pulse.now
    if newest is None:
        raise NotReadyError("no figures have been taken yet", retry_after=1)
    return private(newest.to_json())


@router.get("/series", responses=TABLE_DOCS)
async def series(
    services: ServicesOf,
    caller: AdminOf,
    seconds: Annotated[int, Query(ge=1, le=DAY_S)] = 900,
    format: FormatOf = Format.JSON,  # noqa: A002  (the name is the wire's)
) -> Response:
    """Return the figures of the last seconds: one row a second for half an hour, then one in 30."""
    del caller
    pulse = desk_of(services).pulse
    found = await asyncio.to_thread(_rows, pulse.rings, seconds)
    if format is Format.CSV:
        return table(_COLUMNS, found[1], "forebay-figures")
    content = {
        "step_s": found[0],
        "columns": _COLUMNS,
        "rows": found[1],
        "units": dict(UNITS),
        "thresholds": pulse.thresholds(),
    }
    return await asyncio.to_thread(private, content)


@router.get("/stream", responses=_STREAM_DOCS)
async def stream(services: ServicesOf, caller: AdminOf) -> Response:
    """Follow the figures: `point` each second, `workers` when somebody comes, goes or changes."""
    del caller
    feed = desk_of(services).feed
    feed.check_room()
    return sse.EventStreamResponse(
        feed.events(),
        on_gone=_nobody_is_left,
        keep_alive_s=services.settings.keep_alive_s,
        send_timeout_s=services.settings.send_timeout_s,
    )


async def _nobody_is_left() -> None:
    """Figures are made whoever looks."""


def _rows(rings: Rings, seconds: int) -> tuple[int, list[list[Any]]]:
    found: Series = rings.series(seconds, time.time())
    return found.step_s, [[at_s, *figures] for at_s, figures in found.rows]
