"""Tasks of all tenants, for administrators: look for, follow, cancel, send back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from forebay.api.admin_deeds import deed_of, private
from forebay.api.console.csv_form import TABLE_DOCS, Format, FormatOf, listed
from forebay.api.console.task_view import admin_task, timeline
from forebay.api.dependencies import AdminOf, ServicesOf
from forebay.api.services import Services
from forebay.core.errors import TaskEndedError, TaskNotDeadError, TaskNotFoundError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.ports import Group, TaskQuery, TaskRecord

router = APIRouter(prefix="/v1/admin/tasks", tags=["administration"])

MOST_LISTED = 100
_COLUMNS = (
    "id", "state", "tenant", "model", "priority", "cost_tokens", "created_at", "started_at",
    "finished_at", "deliveries", "worker", "seconds", "reuse", "usage", "error",
)  # fmt: skip


@router.get("", responses=TABLE_DOCS)
async def list_tasks(
    services: ServicesOf,
    caller: AdminOf,
    state: Group | None = None,
    tenant: Annotated[str, Query(max_length=200)] = "",
    q: Annotated[str, Query(max_length=100)] = "",
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
    after: Annotated[str, Query(pattern=r"^[0-9]{0,17}$")] = "",
    format: FormatOf = Format.JSON,  # noqa: A002  (the name is the wire's)
) -> Response:
    """List tasks across tenants, the newest first; `q` is the beginning of an id.

    `after` is the last page's `next_after`, which is null at the end; a page may be short before
    it. Of ended tasks the last 500 of each end are listed; `partial` says that there may be more.
    """
    del caller
    groups = tuple(Group) if state is None else (state,)
    found = await services.operator.find(TaskQuery(groups, tenant, q, after, limit))
    content = {
        "object": "list",
        "data": [admin_task(record) for _, record in found.tasks],
        "next_after": found.after or None,
        "partial": found.partial,
    }
    return listed(content, _COLUMNS, format, "forebay-tasks")


@router.get("/{task_id}")
async def show_task(task_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Return a task with its timeline: each stage of each delivery, and who had it."""
    del caller
    record = await _found(services, task_id)
    return private({**admin_task(record), "timeline": timeline(record)})


@router.post("/{task_id}/cancel")
async def cancel_task(task_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """End any tenant's task: 200 when it is cancelled, 202 while a worker drops it."""
    async with deed_of(services, caller, "task.cancel", task_id):
        await _found(services, task_id)
        await services.queue.cancel(TaskId(task_id))
        record = await _found(services, task_id)
        if record.state.final and record.state is not State.CANCELLED:
            raise TaskEndedError(f"the task {task_id[:64]} has ended: it is {record.state.value}")
    return private(admin_task(record), 200 if record.state.final else 202)


@router.post("/{task_id}/retry")
async def retry_task(task_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Send a dead letter back; it runs alone. The others do not keep what they asked for."""
    async with deed_of(services, caller, "task.retry", task_id):
        record = await _found(services, task_id)
        if not await services.operator.retry(TaskId(task_id)):
            raise TaskNotDeadError(f"the task {task_id[:64]} is {record.state.value}")
        record = await _found(services, task_id)
    return private(admin_task(record), 202)


async def _found(services: Services, task_id: str) -> TaskRecord:
    record = await services.queue.get(TaskId(task_id))
    if record is None:
        raise TaskNotFoundError(f"No such task: {task_id[:64]}. Results expire.")
    return record
