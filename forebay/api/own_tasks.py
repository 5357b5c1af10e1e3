"""A task is its tenant's alone: for others there is no such task."""

from __future__ import annotations

from forebay.access.caller import Caller
from forebay.api.services import Services
from forebay.core.errors import TaskNotFoundError
from forebay.core.request import TaskId
from forebay.queue.ports import TaskRecord


async def own_task(services: Services, caller: Caller, task_id: TaskId) -> TaskRecord:
    """Return a task of the caller's tenant.

    Raises TaskNotFoundError for another's, in the words for one that is not there at all.
    """
    record = await services.queue.get(task_id)
    if record is None or record.tenant != caller.tenant:
        raise TaskNotFoundError(f"No such task: {task_id[:64]}. Results expire.")
    return record
