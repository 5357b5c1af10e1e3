from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both: transports are the loop's, and the product's loop is not the tests' usual one."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
