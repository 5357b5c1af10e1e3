"""What every administrative route has in common: its record, its form of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.responses import JSONResponse

from forebay.access.audit import Deed, OpenDeed
from forebay.access.caller import Caller
from forebay.access.opening import Access
from forebay.api.services import Services
from forebay.core.errors import NoSuchRouteError

_PRIVATE = {"Cache-Control": "no-store"}


@asynccontextmanager
async def deed_of(
    services: Services, caller: Caller, action: str, target: str
) -> AsyncIterator[tuple[Access, OpenDeed]]:
    """Record the block as a deed of the caller, whatever comes of it."""
    access = access_of(services)
    deed = Deed(caller.name, action, target, caller.address, "done")
    async with access.audit.recorded(deed) as open_deed:
        yield access, open_deed


def access_of(services: Services) -> Access:
    """Return the door's access. Raises NoSuchRouteError where it has none."""
    if services.access is None:
        raise NoSuchRouteError("this door was opened without keys")
    return services.access


def private(content: dict[str, Any], status: int = 200) -> JSONResponse:
    """Return an answer that no cache may keep."""
    return JSONResponse(content, status_code=status, headers=_PRIVATE)
