"""A real engine behind a real door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from forebay.engine.engine import Engine
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.queue.ports import BlobStore
from forebay.worker.engine_thread import EngineThread
from forebay.worker.journal import Told
from forebay.worker.worker import Worker, WorkerLimits
from tests.api.door import Door


@asynccontextmanager
async def answering(
    door: Door,
    engine: Engine | UpstreamEngine,
    *,
    told: Told | None = None,
    blobs: BlobStore | None = None,
) -> AsyncIterator[None]:
    worker = Worker(
        "w",
        queue=door.queue,
        streams=door.streams,
        blobs=blobs or door.services.blobs,
        engine=EngineThread(engine, on_step=told and told.metrics.see_step)
        if isinstance(engine, Engine)
        else engine,
        limits=WorkerLimits(heartbeat_s=0.2, idle_wait_s=0.2),
        told=told,
    )
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(working, 60)
