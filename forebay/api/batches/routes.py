"""``/v1/batches``, as OpenAI clients know it."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError

from forebay.api.batches.callers import told_caller
from forebay.api.batches.desk import BatchDesk, new_batch_id
from forebay.api.batches.endpoints import ENDPOINTS
from forebay.api.batches.forms import batch_object
from forebay.api.chat_form import Metadata, json_object
from forebay.api.dependencies import CallerOf, ServicesOf
from forebay.api.files.routes import expiry_s, page_of
from forebay.api.middleware.body_limit import read_parsed
from forebay.api.route_docs import json_body
from forebay.api.sampling_form import StrictForm, refusal
from forebay.api.services import Services
from forebay.core.errors import BatchEndedError, InvalidRequestError, NoSuchRouteError
from forebay.queue.batches import BatchRecord
from forebay.queue.files import LONGEST_TTL_S

router = APIRouter(prefix="/v1/batches", tags=["files and batches"])

_WINDOW_S: Final = {"24h": 86_400}


class ExpiresAfter(StrictForm):
    """When what a batch writes is deleted."""

    anchor: Literal["created_at"]
    seconds: int


class BatchForm(StrictForm):
    """What is asked of a batch."""

    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


@router.post("", openapi_extra=json_body(BatchForm))
async def create_batch(request: Request, services: ServicesOf, caller: CallerOf) -> dict[str, Any]:
    """Have every request of an uploaded file answered, behind everyone who waits for an answer."""
    form, _ = await read_parsed(request, _form)
    now = int(time.time())
    wanted = form.output_expires_after
    ttl_s = LONGEST_TTL_S
    if wanted is not None:
        ttl_s = expiry_s(wanted.anchor, wanted.seconds, "output_expires_after")
    batch = BatchRecord(
        batch_id=new_batch_id(),
        tenant=caller.tenant,
        caller=told_caller(caller),
        endpoint=form.endpoint,
        input_id=form.input_file_id,
        created_s=now,
        expires_s=now + _WINDOW_S[form.completion_window],
        output_ttl_s=ttl_s,
        window=form.completion_window,
        metadata=form.metadata,
    )
    await desk_of(services).open(batch)
    return batch_object(batch, services.profile.name)


@router.get("")
async def list_batches(
    services: ServicesOf,
    caller: CallerOf,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List the batches, the newest first, a page at a time."""
    desk = desk_of(services)
    try:
        ids = await desk.batches.newest_first(caller.tenant, after, limit + 1)
    except KeyError as error:
        raise InvalidRequestError("after must be the id of a batch", param="after") from error
    found = {one: await desk.batches.get(one) for one in ids}
    if gone := [one for one, batch in found.items() if batch is None]:
        await desk.batches.drop_from_list(caller.tenant, gone)
    page = [batch_object(one, services.profile.name) for one in found.values() if one][:limit]
    return page_of(page, more=len(ids) > limit)


@router.get("/{batch_id}")
async def get_batch(batch_id: str, services: ServicesOf, caller: CallerOf) -> dict[str, Any]:
    """Return a batch: where it stands, and where its output is."""
    batch = await desk_of(services).find(caller.tenant, batch_id)
    return batch_object(batch, services.profile.name)


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: str, services: ServicesOf, caller: CallerOf) -> dict[str, Any]:
    """End a batch; the answers that there are become its output."""
    desk = desk_of(services)
    batch = await desk.find(caller.tenant, batch_id)
    if not await desk.batches.cancel(batch_id, int(time.time())):
        raise BatchEndedError(f"the batch {batch_id} has ended already: {batch.status.value}")
    batch = await desk.find(caller.tenant, batch_id)
    return batch_object(batch, services.profile.name)


def desk_of(services: Services) -> BatchDesk:
    """Return where batches are kept. Raises NoSuchRouteError where none are."""
    if services.batches is None:
        raise NoSuchRouteError("no batches are kept here")
    return services.batches


def _form(body: bytes) -> BatchForm:
    try:
        form = BatchForm.model_validate(json_object(body))
    except ValidationError as error:
        raise refusal(error) from error
    if form.endpoint not in ENDPOINTS:
        raise InvalidRequestError(
            f"endpoint must be one of {', '.join(ENDPOINTS)}", param="endpoint"
        )
    return form
