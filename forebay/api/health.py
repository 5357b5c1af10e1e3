"""Whether the door lives, whether it is ready, whether the model answers, and its metrics.

And to HEAD, for load balancers that ask so.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from forebay.api.dependencies import ServicesOf
from forebay.api.model_probe import probe, serving_workers
from forebay.api.services import Services
from forebay.core.errors import ForebayError, NotReadyError, QueueUnavailableError
from forebay.ops.metrics import CONTENT_TYPE
from forebay.ops.supervisor_status import is_abandoned
from forebay.ops.worker_status import stalled_workers

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz(services: ServicesOf) -> Response:
    """Answer 200 unless a worker of this machine stands still with work, and nobody replaced it.

    Nor while no worker of this machine lives and their supervisor hangs, who would start one.
    Neither load nor a queue that is away is a reason to restart what runs here.
    """
    if services.run_dir is not None:
        stalled = stalled_workers(services.run_dir, services.settings.stall_s)
        if stalled:
            body = {"status": "stalled", "workers": len(stalled)}
            return JSONResponse(body, status_code=503, headers={"Retry-After": "1"})
        if is_abandoned(services.run_dir):
            return JSONResponse({"status": "abandoned"}, status_code=503)
    return JSONResponse({"status": "alive"})


@router.head("/ready", include_in_schema=False)
@router.get("/ready")
async def ready(services: ServicesOf) -> dict[str, Any]:
    """Answer 200 when a request would be answered.

    The queue is there, it is not drained, and a worker with a warm model serves it.
    """
    workers = await serving_workers(services)
    if (await services.queue.depth()).drained:
        raise NotReadyError("the queue is drained: it gives out no tasks", retry_after=5)
    return {"status": "ready", "workers": workers}


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health(services: ServicesOf) -> Response:
    """Answer 200 when a worker has the model loaded, as the high-concurrency service does."""
    try:
        await serving_workers(services)
    except ForebayError as error:
        body = {"status": "unavailable", "model_loaded": False, "reason": error.code}
        return JSONResponse(body, status_code=503, headers={"Retry-After": "1"})
    return JSONResponse({"status": "ok", "model_loaded": True})


@router.head("/health/generate", include_in_schema=False)
@router.get("/health/generate")
async def generate(services: ServicesOf) -> Response:
    """Have the model say one token about one picture; 200 when it did.

    One question at a time; its result serves everyone for some seconds.
    """
    probed = await services.probed.get(lambda: probe(services))
    if probed.reason is None:
        return JSONResponse(probed.to_dict())
    return JSONResponse(probed.to_dict(), status_code=503, headers={"Retry-After": "5"})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesOf) -> Response:
    """Return the metrics of every process of the queue in the Prometheus text form.

    Whichever API process is asked, the answer is the same; while the queue's server is away, it is
    of the process that was asked alone.
    """
    _see_door(services)
    try:
        await _see_queue(services)
    except QueueUnavailableError:
        services.metrics.miss_queue()
    board = services.board
    content = services.metrics.render() if board is None else await board.render()
    return Response(content, headers={"Content-Type": CONTENT_TYPE})


def _see_door(services: Services) -> None:
    metrics = services.metrics
    metrics.decoder_kills.set(services.decoders.kills)
    metrics.decoders_busy.set(services.decoders.busy)
    metrics.held_bytes.set(services.held.now)
    if services.fetcher is not None:
        metrics.fetch_cache_bytes.set(services.fetcher.kept_bytes)


async def _see_queue(services: Services) -> None:
    depth, workers = await services.queue.depth(), await services.queue.workers()
    if services.replacements is not None:
        services.metrics.workers_replaced.see(await services.replacements.counts())
    services.metrics.see_queue(depth, workers)
