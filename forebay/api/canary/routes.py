"""Canaries, for administrators: how they do, their share, its log; each deed is recorded."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from forebay.api.admin_deeds import deed_of, private
from forebay.api.canary.desk import CanaryDesk
from forebay.api.dependencies import AdminOf, LastOf, ServicesOf
from forebay.api.services import Services
from forebay.core.errors import NoSuchRouteError

router = APIRouter(prefix="/v1/admin/canary", tags=["administration"])


class ShareForm(BaseModel):
    """The share of the tasks that canaries get: 0, none; 1, all while a canary lives."""

    model_config = ConfigDict(extra="forbid")

    share: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


@router.get("")
async def show(services: ServicesOf, caller: AdminOf) -> Response:
    """Return the canaries' share, what they run, and how both groups did lately."""
    del caller
    return private(await _desk(services).overview())


@router.put("")
async def set_share(form: ShareForm, services: ServicesOf, caller: AdminOf) -> Response:
    """Set the canaries' share at once, for every process; it begins a trial, judged afresh."""
    desk = _desk(services)
    async with deed_of(services, caller, "canary.set", f"{form.share:g}"):
        told = await desk.set_share(form.share, caller.name)
    return private(told)


@router.get("/log")
async def share_log(services: ServicesOf, caller: AdminOf, limit: LastOf = 100) -> Response:
    """Return the last changes of the share, the newest first: rollbacks with their figures."""
    del caller
    return private(await _desk(services).log(limit))


def _desk(services: Services) -> CanaryDesk:
    if services.canary is None:
        raise NoSuchRouteError("this door knows of no canaries")
    return services.canary
