"""The log's level at run time, for administrators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from forebay.api.admin_deeds import deed_of, private
from forebay.api.dependencies import AdminOf, ServicesOf
from forebay.api.services import Services
from forebay.core.errors import NoSuchRouteError
from forebay.ops.log_level import LONGEST_S, LogLevels

router = APIRouter(prefix="/v1/admin", tags=["administration"])


class LogLevelForm(BaseModel):
    """``configured``: back to what the settings say."""

    model_config = ConfigDict(extra="forbid")

    level: Literal["debug", "info", "warning", "error", "configured"]
    for_s: Annotated[float, Field(ge=1, le=LONGEST_S)] = 600.0


@router.get("/log-level")
async def log_level(services: ServicesOf, caller: AdminOf) -> Response:
    """Return the level that is logged, until when, and the one of the settings."""
    del caller
    return private(await _told(services))


@router.put("/log-level")
async def set_log_level(form: LogLevelForm, services: ServicesOf, caller: AdminOf) -> Response:
    """Have every API and worker process log from a level on, for `for_s`; then it falls back.

    Processes follow within two seconds.
    """
    async with deed_of(services, caller, "log.level", form.level):
        if form.level == "configured":
            await _levels(services).end()
        else:
            await _levels(services).want(form.level, form.for_s, caller.name)
    return private(await _told(services))


async def _told(services: Services) -> dict[str, Any]:
    found = await _levels(services).wanted()
    configured = services.settings.log_level
    if found is None:
        return {"level": configured, "until": None, "by": None, "configured": configured}
    wanted, _ = found
    told = {"level": wanted.level, "until": wanted.until_s, "by": wanted.by}
    return {**told, "configured": configured}


def _levels(services: Services) -> LogLevels:
    if services.log_levels is None:
        raise NoSuchRouteError("this door was opened without a log whose level could be set")
    return services.log_levels
