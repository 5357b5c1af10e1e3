"""How a route gets at the services, and at who calls it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request

from forebay.access.caller import Caller, Scope
from forebay.api.intake import check_open
from forebay.api.middleware.access import CALLER
from forebay.api.preferences import KEY_HEADER
from forebay.api.services import Services
from forebay.core.errors import NotAuthenticatedError


async def services_of(request: Request) -> Services:
    """Return what the app was created with."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


async def caller_of(request: Request) -> Caller:
    """Return who calls. Raises NotAuthenticatedError where the gate let nobody in."""
    caller = request.scope.get("state", {}).get(CALLER)
    if not isinstance(caller, Caller):
        raise NotAuthenticatedError("send a key: Authorization: Bearer KEY")
    return caller


async def admin_of(request: Request) -> Caller:
    """Return who calls, an administrator. Raises ForbiddenError for anyone else."""
    caller = await caller_of(request)
    caller.require(Scope.ADMIN)
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]
AdminOf = Annotated[Caller, Depends(admin_of)]
ServicesOf = Annotated[Services, Depends(services_of)]
LastOf = Annotated[int, Query(ge=1, le=1000)]
"""How many of a log's entries are wanted, the newest."""


async def open_door(request: Request, services: ServicesOf) -> Services:
    """Return the services, if a request may come in at all.

    One with an idempotency key may be there already, and is told only when it is read.

    Raises:
        QueueFullError, QueueUnavailableError: before a byte of the body is read.
    """
    if KEY_HEADER not in request.headers:
        await check_open(services)
    return services


async def let_in(request: Request) -> tuple[Services, Caller]:
    """Return what a plain route works with, and for whom. Raises as the two that it calls."""
    return await open_door(request, await services_of(request)), await caller_of(request)


OpenDoor = Annotated[Services, Depends(open_door)]
"""For routes that put a request into the queue, in place of ``ServicesOf``."""
