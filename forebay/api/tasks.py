"""The tasks API: put a request into the queue, follow it, read it, cancel it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from forebay.api import sse
from forebay.api.answers import answered, await_end
from forebay.api.chat_objects import completion
from forebay.api.cursors import next_cursor, read_cursor, refused
from forebay.api.dependencies import CallerOf, OpenDoor, ServicesOf
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST, ClientGoneError, unless_gone
from forebay.api.intake import submit
from forebay.api.own_tasks import own_task
from forebay.api.preferences import REPLAYED_HEADER, preferred_wait_s
from forebay.api.reuse import cache_header, cache_wishes
from forebay.api.services import Services
from forebay.api.task_docs import NEW_TASK_DOCS
from forebay.api.task_events import nothing_follows, task_events
from forebay.api.task_form import read_task
from forebay.api.task_object import task_object, task_urls
from forebay.core.errors import InvalidRequestError, TaskEndedError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.ports import STREAM_START, Listing, StreamId, TaskRecord
from forebay.queue.token_stream import STREAM_ID_PATTERN, check_stream_id

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

_SHORTEST_POLL_S: Final = 1
_LONGEST_POLL_S: Final = 60
_MOST_LISTED: Final = 100
_LAST_EVENT: Final = "Last-Event-ID"
_UNCACHED: Final = {"Cache-Control": "no-store"}


class ListedState(StrEnum):
    """Which tasks to list. Delayed tasks and suspects (their worker died) are queued too, apart."""

    QUEUED = "queued"
    DELAYED = "delayed"
    SUSPECT = "suspect"
    RUNNING = "running"
    DEAD = "dead"

    @property
    def listing(self) -> Listing:
        """The queue's own word for it."""
        return _LISTINGS[self]


_LISTINGS: Final = {
    ListedState.QUEUED: Listing.WAITING,
    ListedState.DELAYED: Listing.DELAYED,
    ListedState.SUSPECT: Listing.SUSPECTS,
    ListedState.RUNNING: Listing.LEASED,
    ListedState.DEAD: Listing.DEAD,
}


@router.post("", openapi_extra=NEW_TASK_DOCS)
async def create_task(request: Request, services: OpenDoor, caller: CallerOf) -> Response:
    """Take a request into the queue: 202 with the task, its place and where to follow it.

    With `Prefer: wait=N` the answer comes within N seconds as 200 with the finished task, else as
    202. With `Idempotency-Key` a request sent again is the same task, answered with 200.
    """
    ask = await read_task(request, services.settings, most_images=services.limits.max_images)
    if ask.webhook_url is not None:
        ask = replace(ask, webhook_url=services.webhooks.accept(ask.webhook_url))
    ask = replace(ask, cache=cache_wishes(request.headers))
    enqueued = await submit(services, ask, caller)
    wait_s = preferred_wait_s(request)
    headers = cache_header(enqueued)
    if not enqueued.fresh:
        headers[REPLAYED_HEADER] = "true"
    if wait_s is not None:
        wait_s = min(wait_s, math.floor(services.settings.answer_timeout_s))
        headers["Preference-Applied"] = f"wait={wait_s}"
        try:
            await unless_gone(request.receive, _wait(services, enqueued.task_id, wait_s))
        except ClientGoneError:  # the task goes on: it was made to be asked for later
            return Response(status_code=CLIENT_CLOSED_REQUEST)
    record = await own_task(services, caller, enqueued.task_id)
    known = record.state.final or not enqueued.fresh
    return _task_response(request, record, status=200 if known else 202, headers=headers)


@router.get("")
async def list_tasks(
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    state: ListedState = ListedState.QUEUED,
    limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = 20,
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List tasks that have not ended, and dead letters; other ends are known by their ids alone.

    `cursor` is the last page's `next_cursor`, which is null at the end.
    """
    after = read_cursor(state.listing, caller.tenant, cursor)
    try:
        page = await services.operator.list_tasks(
            state.listing, cursor=after, limit=limit, tenant=caller.tenant
        )
    except ValueError as error:
        raise refused() from error
    own = [one for one in page.tasks if one.tenant == caller.tenant]
    found = [task_object(record, root=_root(request)) for record in own]
    more = next_cursor(state.listing, caller.tenant, page.cursor)
    body = {"object": "list", "data": found, "next_cursor": more}
    return JSONResponse(body, headers=_UNCACHED)


@router.get("/{task_id}")
async def get_task(
    task_id: str, request: Request, services: ServicesOf, caller: CallerOf
) -> Response:
    """Return the task: where it stands, and at its end its output or its error."""
    record = await own_task(services, caller, TaskId(task_id))
    return _task_response(request, record, status=200)


@router.get("/{task_id}/result")
async def task_result(
    task_id: str, request: Request, services: ServicesOf, caller: CallerOf
) -> Response:
    """Return the answer as a chat completion, or its error; 202 until there is either."""
    record = await own_task(services, caller, TaskId(task_id))
    if not record.state.final:
        return _task_response(request, record, status=202)
    return JSONResponse(completion(answered(record)), headers=_UNCACHED)


@router.delete("/{task_id}")
@router.post("/{task_id}/cancel")
async def cancel_task(
    task_id: str, request: Request, services: ServicesOf, caller: CallerOf
) -> Response:
    """End a task: 200 when it is cancelled, 202 while a worker drops it, 409 when it had ended."""
    await own_task(services, caller, TaskId(task_id))
    await services.queue.cancel(TaskId(task_id))
    record = await own_task(services, caller, TaskId(task_id))
    if record.state.final and record.state is not State.CANCELLED:
        raise TaskEndedError(f"the task {task_id} has ended already: it is {record.state.value}")
    return _task_response(request, record, status=200 if record.state.final else 202)


@router.get("/{task_id}/events")
async def follow_task(
    task_id: str,
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    starting_after: Annotated[
        str | None, Query(max_length=50, json_schema_extra={"pattern": STREAM_ID_PATTERN})
    ] = None,
) -> Response:
    """Follow the task by server-sent events, from its place in the queue to its end.

    A client that comes back names the last `id` it has read, in `Last-Event-ID` or
    `starting_after`, and hears what followed; 204 where nothing will.
    """
    after = _place(request.headers.get(_LAST_EVENT) or None, _LAST_EVENT)
    if after is None:
        after = _place(starting_after, "starting_after") or STREAM_START
    record = await own_task(services, caller, TaskId(task_id))
    if record.state.final and await nothing_follows(services, record.task_id, after):
        return Response(status_code=204)  # an EventSource comes back until it is told so
    return sse.EventStreamResponse(
        task_events(services, record, after, root=_root(request)),
        on_gone=_let_it_run,
        keep_alive_s=services.settings.keep_alive_s,
        send_timeout_s=services.settings.send_timeout_s,
    )


async def _let_it_run() -> None:
    """A task that was made to be asked for later outlives those who listen to it."""


async def _wait(services: Services, task_id: TaskId, wait_s: int) -> None:
    """Return at the task's end, or after ``wait_s``."""
    try:
        async with asyncio.timeout(wait_s):
            await await_end(services, task_id)
    except TimeoutError:
        return


def _task_response(
    request: Request, record: TaskRecord, *, status: int, headers: dict[str, str] | None = None
) -> Response:
    root = _root(request)
    told = {**_UNCACHED, **(headers or {})}
    if status == 202:
        told["Location"] = task_urls(record.task_id, root)["self"]
        told["Retry-After"] = str(_poll_after_s(record))
    return JSONResponse(task_object(record, root=root), status_code=status, headers=told)


def _poll_after_s(record: TaskRecord) -> int:
    """Return when to ask again: it has not started before its turn comes."""
    return min(_LONGEST_POLL_S, max(_SHORTEST_POLL_S, math.ceil(record.eta_s or 0)))


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root


def _place(given: str | None, param: str) -> StreamId | None:
    """Return where to begin. Raises InvalidRequestError naming ``param``, which said it."""
    if given is None:
        return None
    try:
        check_stream_id(given)
    except ValueError as error:
        raise InvalidRequestError(
            "name the id of the last event that was read", param=param
        ) from error
    return StreamId(given)
