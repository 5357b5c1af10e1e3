"""The limits in force, and what is used of them, for administrators."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from starlette.responses import Response

from forebay.api.admin_deeds import private
from forebay.api.dependencies import AdminOf, ServicesOf

router = APIRouter(prefix="/v1/admin", tags=["administration"])

MOST_TENANTS = 100


@router.get("/limits")
async def limits(services: ServicesOf, caller: AdminOf) -> Response:
    """Return what the door and the queue let in, what is there now, and whose most of it is.

    A limit that is null is not set; keys may have limits of their own: GET /v1/admin/keys.
    """
    del caller
    depth, tenants = await services.queue.depth(), await services.operator.tenants()
    busiest = sorted(tenants.items(), key=lambda one: -one[1].waiting_tokens)[:MOST_TENANTS]
    return private(
        {
            "limits": dict(services.caps),
            "load": {
                "waiting": depth.waiting,
                "waiting_tokens": depth.waiting_tokens,
                "running": depth.leased,
                "dead_letters": depth.dead,
                "oldest_s": depth.oldest_s,
                "tokens_per_s": depth.tokens_per_s,
                "drained": depth.drained,
                "inflight_bytes": services.held.in_all,
            },
            "tenants": [{"tenant": name, **asdict(load)} for name, load in busiest],
        }
    )
