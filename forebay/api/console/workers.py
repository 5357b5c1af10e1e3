"""Workers, for administrators: see, drain, undrain, restart, scale; each deed is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from forebay.access.caller import Caller
from forebay.api.admin_deeds import deed_of, private
from forebay.api.console.csv_form import TABLE_DOCS, Format, FormatOf, listed
from forebay.api.console.opening import desk_of
from forebay.api.dependencies import AdminOf, ServicesOf
from forebay.api.services import Services

router = APIRouter(prefix="/v1/admin/workers", tags=["administration"])

MOST_WORKERS = 64
_COLUMNS = (
    "id", "host", "pid", "state", "leases", "model", "version", "device", "quantization", "running",
    "waiting", "max_running", "kv_use", "prefix_hits", "encoder_hits", "answered", "failed",
    "memory_bytes", "still_s", "seen_at", "started_at", "ordered", "stack", "group",
)  # fmt: skip


class ScaleForm(BaseModel):
    """How many workers each `serve` runs; ``stack``: that one alone."""

    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=0, le=MOST_WORKERS)]
    stack: Annotated[str | None, Field(max_length=200)] = None


@router.get("", responses=TABLE_DOCS)
async def list_workers(
    services: ServicesOf,
    caller: AdminOf,
    format: FormatOf = Format.JSON,  # noqa: A002  (the name is the wire's)
) -> Response:
    """List every worker with its state, and the supervisors that start them."""
    del caller
    return listed(await desk_of(services).overview(), _COLUMNS, format, "forebay-workers")


@router.post("/scale")
async def scale(form: ScaleForm, services: ServicesOf, caller: AdminOf) -> Response:
    """Have every `forebay serve` of the queue run so many workers; those too many drain first."""
    desk = desk_of(services)
    target = f"{form.stack or 'every stack'}: {form.count}"
    async with deed_of(services, caller, "worker.scale", target):
        stacks = await desk.scale(form.count, form.stack)
    return private({"count": form.count, "stacks": stacks}, 202)


@router.post("/{worker}/drain")
async def drain(worker: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Have a worker take nothing more; it ends what its engine has and gives back the rest."""
    return await _ordered(services, caller, "drain", worker, desk_of(services).drain)


@router.post("/{worker}/undrain")
async def undrain(worker: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Have a drained worker take tasks again."""
    return await _ordered(services, caller, "undrain", worker, desk_of(services).undrain)


@router.post("/{worker}/restart")
async def restart(worker: str, services: ServicesOf, caller: AdminOf) -> Response:
    """Have a worker drain and begin anew; without a supervisor it ends, for others to start it."""
    return await _ordered(services, caller, "restart", worker, desk_of(services).restart)


async def _ordered(
    services: Services,
    caller: Caller,
    deed: str,
    worker: str,
    order: Callable[[str], Awaitable[dict[str, Any]]],
) -> Response:
    async with deed_of(services, caller, f"worker.{deed}", worker):
        return private(await order(worker), 202)
