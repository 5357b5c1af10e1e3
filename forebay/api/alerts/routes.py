"""Alerts, for administrators: see, silence, test; each deed is recorded."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from forebay.api.admin_deeds import deed_of, private
from forebay.api.alerts.desk import AlertDesk
from forebay.api.console.csv_form import TABLE_DOCS, Format, FormatOf, listed
from forebay.api.dependencies import AdminOf, LastOf, ServicesOf
from forebay.api.services import Services
from forebay.core.errors import InvalidRequestError, NoSuchRouteError, SilenceNotFoundError
from forebay.ops.alerts.silences import LONGEST_S, MOST_SILENCES, Silence, new_silence_id

router = APIRouter(prefix="/v1/admin/alerts", tags=["administration"])

_CHANGE = ("at", "rule", "key", "stage", "value", "text")

Word = Annotated[str, Field(max_length=200)]


class SilenceForm(BaseModel):
    """What is to be silent, and for how long. ``rule``: empty for every one."""

    model_config = ConfigDict(extra="forbid")

    rule: Word = ""
    labels: Annotated[dict[Word, Word], Field(max_length=10)] = {}
    for_s: Annotated[float, Field(gt=0, le=LONGEST_S)]
    reason: Word = ""


class PushTestForm(BaseModel):
    """Which channel is tested; empty: every one."""

    model_config = ConfigDict(extra="forbid")

    channel: Word = ""


@router.get("")
async def list_alerts(services: ServicesOf, caller: AdminOf) -> Response:
    """Return what is pending, fires or has just ended, the silences, channels and rules."""
    del caller
    return private(await _desk(services).overview())


@router.get("/history", responses=TABLE_DOCS)
async def history(
    services: ServicesOf,
    caller: AdminOf,
    limit: LastOf = 100,
    format: FormatOf = Format.JSON,  # noqa: A002  (the name is the wire's)
) -> Response:
    """Return the last alerts that began to fire or ended, the newest first."""
    del caller
    content = {"object": "list", "data": await _desk(services).store.log(limit)}
    return listed(content, _CHANGE, format, "forebay-alerts")


@router.post("/silences")
async def silence(form: SilenceForm, services: ServicesOf, caller: AdminOf) -> Response:
    """Tell nobody of some alerts for a while; they are judged, listed and recorded all the same."""
    desk, now_s = _desk(services), time.time()
    check_rule(form.rule, desk)
    made = Silence(
        new_silence_id(),
        form.rule,
        form.labels,
        now_s + form.for_s,
        form.reason,
        caller.name,
        now_s,
    )
    async with deed_of(services, caller, "alert.silence", made.silence_id):
        if not await desk.store.silence(made):
            raise InvalidRequestError(f"there are {MOST_SILENCES} silences already; end some")
    return private(made.to_json(), 201)


@router.delete("/silences/{silence_id}")
async def unsilence(silence_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """End a silence now."""
    desk = _desk(services)
    async with deed_of(services, caller, "alert.unsilence", silence_id):
        if not await desk.store.unsilence(silence_id):
            raise SilenceNotFoundError(f"there is no silence {silence_id[:64]}")
    return private({"id": silence_id, "status": "ended"})


@router.post("/test")
async def push_test(
    services: ServicesOf, caller: AdminOf, form: PushTestForm | None = None
) -> Response:
    """Send a test message by one channel or all of them; the answer says what became of each."""
    teller, wanted = _desk(services).teller, (form or PushTestForm()).channel
    if wanted and wanted not in teller.channels:
        known = ", ".join(teller.channels) or "none"
        raise InvalidRequestError(f"no such channel is set up; there is: {known}", param="channel")
    results = []
    async with deed_of(services, caller, "alert.test", wanted or "every channel"):
        for channel in [wanted] if wanted else teller.channels:
            reason = await teller.test(channel)
            results.append({"channel": channel, "sent": reason is None, "reason": reason})
    return private({"object": "list", "data": results})


def check_rule(name: str, desk: AlertDesk) -> None:
    """Raise InvalidRequestError for the name of no rule."""
    if name and name not in {one.name for one in desk.rules}:
        raise InvalidRequestError(
            "no rule has this name; GET /v1/admin/alerts lists them", param="rule"
        )


def _desk(services: Services) -> AlertDesk:
    if services.alerts is None:
        raise NoSuchRouteError("no alerts are judged here: the setting `alerts` is off")
    return services.alerts
