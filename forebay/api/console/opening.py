"""How a route gets at the console's desk."""

from __future__ import annotations

from forebay.api.console.desk import ConsoleDesk
from forebay.api.services import Services
from forebay.core.errors import NoSuchRouteError


def desk_of(services: Services) -> ConsoleDesk:
    """Return the console's desk. Raises NoSuchRouteError where this door has none."""
    if services.console is None:
        raise NoSuchRouteError("this door was opened without a console")
    return services.console
