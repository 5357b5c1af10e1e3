"""How a route gets at the services."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from forebay.api.services import Services


def services_of(request: Request) -> Services:
    """Return what the app was created with."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesOf = Annotated[Services, Depends(services_of)]
