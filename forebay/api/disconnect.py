"""A client that hangs up ends the work that was for it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")

CLIENT_CLOSED_REQUEST = 499
"""For the log and the metrics (nginx's number): nobody is there to read it."""


class ClientGoneError(Exception):
    """The client closed its connection before its answer was ready."""


async def gone(receive: Receive) -> None:
    """Return when the client has hung up. The request's body must have been read already."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``; cancel it when the client hangs up first.

    Raises:
        ClientGoneError: it did.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        await end(working, watching)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait until it has ended; failures were the waiter's to read."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
