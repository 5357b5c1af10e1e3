"""Whether the door lives, whether it is ready, and its metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from forebay.api.dependencies import ServicesOf
from forebay.api.services import Services
from forebay.core.errors import ForebayError, NotReadyError, QueueUnavailableError
from forebay.ops.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer as long as this process lives; nothing else is asked."""
    return {"status": "alive"}


@router.get("/ready")
async def ready(services: ServicesOf) -> dict[str, Any]:
    """Answer 200 when a request would be answered: the queue is there and a worker serves it."""
    return {"status": "ready", "workers": await _workers(services)}


@router.get("/health")
async def health(services: ServicesOf) -> Response:
    """Answer 200 when a worker has the model loaded, as the high-concurrency service does."""
    try:
        await _workers(services)
    except ForebayError as error:
        body = {"status": "unavailable", "model_loaded": False, "reason": error.code}
        return JSONResponse(body, status_code=503, headers={"Retry-After": "1"})
    return JSONResponse({"status": "ok", "model_loaded": True})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesOf) -> Response:
    """Return the door's metrics and the queue's size in the Prometheus text form."""
    services.metrics.decoder_kills.set(services.decoders.kills)
    try:
        depth, workers = await services.queue.depth(), await services.queue.workers()
        services.metrics.see_queue(depth, workers)
    except QueueUnavailableError:
        services.metrics.miss_queue()
    return Response(services.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


async def _workers(services: Services) -> int:
    """Return how many workers serve. Raises NotReadyError for none, QueueUnavailableError."""
    workers = await services.queue.workers()
    if workers < 1:
        raise NotReadyError("no worker with a loaded model has been heard of lately", retry_after=2)
    return workers
