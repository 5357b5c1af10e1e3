"""Sends dead letters back by the hundred."""

from __future__ import annotations

from typing import Final

from forebay.queue.ports import Listing, Operator

MOST_REPLAYED: Final = 1_000
_PAGE: Final = 100


async def replay(operator: Operator, tenant: str) -> tuple[int, bool]:
    """Send back the dead letters of a tenant, or of all (an empty name), the oldest first.

    Returns how many, ``MOST_REPLAYED`` at most, and whether more may be there.
    Raises QueueUnavailableError; those that were sent back until then are.
    """
    retried, cursor = 0, ""
    while True:
        page = await operator.list_tasks(Listing.DEAD, cursor=cursor, limit=_PAGE)
        for record in page.tasks:
            if tenant in ("", record.tenant):
                retried += await operator.retry(record.task_id)
        cursor = page.cursor
        if not cursor or retried >= MOST_REPLAYED:
            return retried, bool(cursor)
