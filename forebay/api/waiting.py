"""A plain call: the response is the answer, so the request waits for it."""

from __future__ import annotations

import asyncio

from fastapi import Request

from forebay.api.answers import final_record
from forebay.api.disconnect import ClientGoneError, unless_gone
from forebay.api.services import Services
from forebay.core.errors import TaskTimeoutError
from forebay.core.request import TaskId
from forebay.queue.ports import TaskRecord


async def answered(
    request: Request, services: Services, task_id: TaskId, *, lasting: bool
) -> TaskRecord | None:
    """Wait for a task's answer; None where the client has hung up.

    Nobody would read the answer then, or after too long a wait, so the task is cancelled; unless it
    is ``lasting``: its client gave an idempotency key and may come back for it.

    Raises:
        TaskTimeoutError: it takes longer than a plain call waits.
        ForebayError: the task's own error.
    """
    waits_s = services.settings.answer_timeout_s
    try:
        async with asyncio.timeout(waits_s):
            return await unless_gone(request.receive, final_record(services, task_id))
    except ClientGoneError:
        await abandon(services, task_id, lasting=lasting)
        return None
    except TimeoutError as error:
        if not lasting:
            await services.queue.cancel(task_id)
        raise TaskTimeoutError(f"no answer within {waits_s:g} s") from error


async def abandon(services: Services, task_id: TaskId, *, lasting: bool) -> None:
    """A client has hung up: count it, and cancel what nobody will read."""
    services.metrics.abandoned.inc()
    if not lasting:
        await services.queue.cancel(task_id)
