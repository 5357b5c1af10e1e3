"""Administration, on its own scope: keys, drain, dead letters, and the record of it all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from forebay.access.caller import Caller
from forebay.access.keys import KeyId, public_form
from forebay.api.admin_deeds import access_of, deed_of, private
from forebay.api.admin_forms import NewKeyForm, ReplayForm, RotationForm
from forebay.api.console.csv_form import TABLE_DOCS, Format, FormatOf, listed
from forebay.api.console.replaying import replay
from forebay.api.cursors import next_cursor, read_cursor, refused
from forebay.api.dependencies import AdminOf, LastOf, ServicesOf
from forebay.api.services import Services
from forebay.api.task_object import task_object
from forebay.core.errors import (
    TaskNotFoundError,
)
from forebay.core.request import TaskId, Tenant
from forebay.queue.ports import Listing

router = APIRouter(prefix="/v1/admin", tags=["administration"])

_DEED = ("at", "actor", "action", "target", "from", "outcome")
_OF_ALL: Final = "*"
"""In the place of a tenant, whose name has no such sign."""


@router.post("/keys")
async def create_key(form: NewKeyForm, services: ServicesOf, caller: AdminOf) -> Response:
    """Make an API key. The answer has it in `key`: it is shown this once."""
    async with deed_of(services, caller, "key.create", form.label) as (access, deed):
        key, text = await access.keys.create(
            form.label,
            frozenset(form.scopes),
            Tenant(form.tenant),
            form.allowance.to_allowance(),
            form.expires_in_s,
        )
        deed.target = key.key_id
    return private({**public_form(key), "key": text}, 201)


@router.get("/keys")
async def list_keys(services: ServicesOf, caller: AdminOf) -> Response:
    """List every API key, the newest first."""
    del caller
    found = await access_of(services).keys.list_keys()
    return private({"object": "list", "data": [public_form(key) for key in found]})


@router.get("/keys/{key_id}")
async def show_key(key_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Return what is known of a key; never the key."""
    del caller
    return private(public_form(await access_of(services).keys.get(KeyId(key_id))))


@router.post("/keys/{key_id}/rotate")
async def rotate_key(
    key_id: str, services: ServicesOf, caller: AdminOf, form: RotationForm | None = None
) -> Response:
    """Make a new key of the same id; the one before is good for `overlap_s` more (a day)."""
    overlap_s = (form or RotationForm()).overlap_s
    async with deed_of(services, caller, "key.rotate", key_id) as (access, _):
        key, text = await access.keys.rotate(KeyId(key_id), overlap_s)
        access.ring.forget(key.key_id)
    return private({**public_form(key), "key": text})


@router.delete("/keys/{key_id}")
async def revoke_key(key_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """End a key: at once here, within two seconds in every other process."""
    async with deed_of(services, caller, "key.revoke", key_id) as (access, _):
        key = await access.keys.revoke(KeyId(key_id))
        access.ring.forget(key.key_id)
    return private(public_form(key))


@router.get("/queue")
async def queue_size(services: ServicesOf, caller: AdminOf) -> Response:
    """Return the queue's size, and whether it is drained."""
    del caller
    return private(asdict(await services.queue.depth()))


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
    after = read_cursor(Listing.DEAD, _OF_ALL, cursor)
    try:
        page = await services.operator.list_tasks(Listing.DEAD, cursor=after, limit=limit)
    except ValueError as error:
        raise refused() from error
    found = [{**task_object(record), "tenant": record.tenant} for record in page.tasks]
    more = next_cursor(Listing.DEAD, _OF_ALL, page.cursor)
    return private({"object": "list", "data": found, "next_cursor": more})


@router.post("/dead-letters/retry")
async def retry_dead_letters(
    services: ServicesOf, caller: AdminOf, form: ReplayForm | None = None
) -> Response:
    """Send dead letters back, 1000 at most in one call, of one tenant or all; each runs alone."""
    tenant = (form or ReplayForm()).tenant
    async with deed_of(services, caller, "dead_letter.retry_all", tenant or "every tenant"):
        retried, more = await replay(services.operator, tenant)
    return private({"retried": retried, "more": more})


@router.post("/dead-letters/{task_id}/retry")
async def retry_dead_letter(task_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Send a dead letter back; it runs alone."""
    async with deed_of(services, caller, "dead_letter.retry", task_id):
        _check_dead(task_id, await services.operator.retry(TaskId(task_id)))
    return private({"id": task_id, "status": "queued"})


@router.delete("/dead-letters/{task_id}")
async def drop_dead_letter(task_id: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Forget a dead letter, and what it asked for."""
    async with deed_of(services, caller, "dead_letter.drop", task_id):
        _check_dead(task_id, await services.operator.drop(TaskId(task_id)))
    return private({"id": task_id, "status": "dropped"})


@router.get("/audit", responses=TABLE_DOCS)
async def audit(
    services: ServicesOf,
    caller: AdminOf,
    limit: LastOf = 100,
    format: FormatOf = Format.JSON,  # noqa: A002  (the name is the wire's)
) -> Response:
    """Return the last deeds, the newest first: who did what to which, from where, and the end."""
    del caller
    content = {"object": "list", "data": await access_of(services).audit.latest(limit)}
    return listed(content, _DEED, format, "forebay-audit")


async def _drain(services: Services, caller: Caller, *, on: bool) -> Response:
    async with deed_of(services, caller, "queue.drain" if on else "queue.undrain", "queue"):
        await services.operator.drain(on)
    return private({"drained": on})


def _check_dead(task_id: str, found: bool) -> None:
    if not found:
        raise TaskNotFoundError(f"there is no dead letter {task_id[:64]}")
