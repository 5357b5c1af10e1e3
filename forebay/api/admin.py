"""Administration, on its own scope: keys, drain, dead letters, and the record of it all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from forebay.access.audit import Deed, OpenDeed
from forebay.access.caller import Caller
from forebay.access.keys import KeyId, public_form
from forebay.access.opening import Access
from forebay.api.admin_forms import NewKeyForm, RotationForm
from forebay.api.dependencies import AdminOf, ServicesOf
from forebay.api.services import Services
from forebay.api.task_object import task_object
from forebay.core.errors import (
    InvalidRequestError,
    NoSuchRouteError,
    TaskNotFoundError,
)
from forebay.core.request import TaskId, Tenant
from forebay.queue.ports import Listing

router = APIRouter(prefix="/v1/admin", tags=["administration"])

_PRIVATE = {"Cache-Control": "no-store"}


@router.post("/keys")
async def create_key(form: NewKeyForm, services: ServicesOf, caller: AdminOf) -> Response:
    """Make an API key. The answer has it in `key`: it is shown this once."""
    async with _deed(services, caller, "key.create", form.label) as (access, deed):
        key, text = await access.keys.create(
            form.label,
            frozenset(form.scopes),
            Tenant(form.tenant),
            form.allowance.to_allowance(),
            form.expires_in_s,
        )
        deed.target = key.key_id
    return _private({**public_form(key), "key": text}, 201)


@router.get("/keys")
async def list_keys(services: ServicesOf, caller: AdminOf) -> Response:
    """List every API key, the newest first."""
    del caller
    found = await _access(services).keys.list_keys()
    return _private({"object": "list", "data": [public_form(key) for key in found]})


@router.get("/keys/{key_id}")
async def show_key(key_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Return what is known of a key; never the key."""
    del caller
    return _private(public_form(await _access(services).keys.get(KeyId(key_id))))


@router.post("/keys/{key_id}/rotate")
async def rotate_key(
    key_id: str, services: ServicesOf, caller: AdminOf, form: RotationForm | None = None
) -> Response:
    """Make a new key of the same id; the one before is good for `overlap_s` more (a day)."""
    overlap_s = (form or RotationForm()).overlap_s
    async with _deed(services, caller, "key.rotate", key_id) as (access, _):
        key, text = await access.keys.rotate(KeyId(key_id), overlap_s)
        access.ring.forget(key.key_id)
    return _private({**public_form(key), "key": text})


@router.delete("/keys/{key_id}")
async def revoke_key(key_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """End a key: at once here, within two seconds in every other process."""
    async with _deed(services, caller, "key.revoke", key_id) as (access, _):
        key = await access.keys.revoke(KeyId(key_id))
        access.ring.forget(key.key_id)
    return _private(public_form(key))


@router.get("/queue")
async def queue_size(services: ServicesOf, caller: AdminOf) -> Response:
    """Return the queue's size, and whether it is drained."""
    del caller
    return _private(asdict(await services.queue.depth()))


@router.post("/queue/drain")
async def drain(services: ServicesOf, caller: AdminOf) -> Response:
    """Give out no more tasks to workers; they are still taken in, and running ones end."""
    return await _drain(services, caller, on=True)


@router.post("/queue/undrain")
async def undrain(services: ServicesOf, caller: AdminOf) -> Response:
    """Give out tasks again."""
    return await _drain(services, caller, on=False)


@router.get("/dead-letters")
async def list_dead_letters(
    services: ServicesOf,
    caller: AdminOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str, Query(max_length=1000)] = "",
) -> Response:
    """List the dead letters of every tenant; `cursor` is the last page's `next_cursor`."""
    del caller
    try:
        page = await services.operator.list_tasks(Listing.DEAD, cursor=cursor, limit=limit)
    except ValueError as error:
        raise InvalidRequestError(
            "cursor must be the next_cursor of a page", param="cursor"
        ) from error
    found = [{**task_object(record), "tenant": record.tenant} for record in page.tasks]
    return _private({"object": "list", "data": found, "next_cursor": page.cursor or None})


@router.post("/dead-letters/{task_id}/retry")
async def retry_dead_letter(task_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Send a dead letter back; it runs alone."""
    async with _deed(services, caller, "dead_letter.retry", task_id):
        _check_dead(task_id, await services.operator.retry(TaskId(task_id)))
    return _private({"id": task_id, "status": "queued"})


@router.delete("/dead-letters/{task_id}")
async def drop_dead_letter(task_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Forget a dead letter, and what it asked for."""
    async with _deed(services, caller, "dead_letter.drop", task_id):
        _check_dead(task_id, await services.operator.drop(TaskId(task_id)))
    return _private({"id": task_id, "status": "dropped"})


@router.get("/audit")
async def audit(
    services: ServicesOf, caller: AdminOf, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """Return the last deeds, the newest first: who did what to which, from where, and the end."""
    del caller
    return _private({"object": "list", "data": await _access(services).audit.latest(limit)})


@asynccontextmanager
async def _deed(
    services: Services, caller: Caller, action: str, target: str
) -> AsyncIterator[tuple[Access, OpenDeed]]:
    """Record the block as a deed of the caller, whatever comes of it."""
    access = _access(services)
    deed = Deed(caller.name, action, target, caller.address, "done")
    async with access.audit.recorded(deed) as open_deed:
        yield access, open_deed


async def _drain(services: Services, caller: Caller, *, on: bool) -> Response:
    async with _deed(services, caller, "queue.drain" if on else "queue.undrain", "queue"):
        await services.operator.drain(on)
    return _private({"drained": on})


def _access(services: Services) -> Access:
    if services.access is None:
        raise NoSuchRouteError("this door was opened without keys")
    return services.access


def _check_dead(task_id: str, found: bool) -> None:
    if not found:
        raise TaskNotFoundError(f"there is no dead letter {task_id[:64]}")


def _private(content: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(content, status_code=status, headers=_PRIVATE)
