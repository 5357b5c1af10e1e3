"""How a route gets at the services, and at who calls it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from forebay.access.caller import Caller, Scope
from forebay.api.middleware.access import CALLER
from forebay.api.services import Services
from forebay.core.errors import NotAuthenticatedError


def services_of(request: Request) -> Services:
    """Return what the app was created with."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def caller_of(request: Request) -> Caller:
    """Return who calls. Raises NotAuthenticatedError where the gate let nobody in."""
    caller = request.scope.get("state", {}).get(CALLER)
    if not isinstance(caller, Caller):
        raise NotAuthenticatedError("send a key: Authorization: Bearer KEY")
    return caller


def admin_of(request: Request) -> Caller:
    """Return who calls, an administrator. Raises ForbiddenError for anyone else."""
    caller = caller_of(request)
    caller.require(Scope.ADMIN)
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]
AdminOf = Annotated[Caller, Depends(admin_of)]
ServicesOf = Annotated[Services, Depends(services_of)]
