"""A real engine behind a real door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from forebay.engine.engine import Engine
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.worker.engine_thread import EngineThread
from forebay.worker.worker import Worker, WorkerLimits
from tests.api.door import Door


@asynccontextmanager
async def answering(door: Door, engine: Engine | UpstreamEngine) -> AsyncIterator[None]:
    worker = Worker(
        "w",
        queue=door.queue,
        streams=door.streams,
        blobs=door.services.blobs,
        engine=EngineThread(engine) if isinstance(engine, Engine) else engine,
        limits=WorkerLimits(heartbeat_s=0.2, idle_wait_s=0.2),
    )
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(working, 60)
