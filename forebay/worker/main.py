"""The worker process: composition root of queue, blobs and engine."""

from __future__ import annotations

import asyncio
import os
import time

import structlog

from forebay.config import Settings, SettingsError
from forebay.core.image_grid import MAX_ASPECT_RATIO
from forebay.engine.engine import Engine, device_named
from forebay.engine.limits import EngineLimits
from forebay.logs import configure_logs
from forebay.models.quantization import Quantization, choice_for
from forebay.queue.blobs import FolderBlobs
from forebay.queue.connection import connect
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from forebay.worker.engine_thread import EngineBrokenError
from forebay.worker.signals import StopSignal
from forebay.worker.status import Phase, WorkerStatus, peak_memory_bytes, write_status
from forebay.worker.worker import Worker, WorkerLimits

log = structlog.get_logger("forebay.worker")

AHEAD = 4
"""Leases beyond what the engine runs, so that the next requests are prepared meanwhile."""

PIXELS_A_TOKEN = 28
"""Side of the square that a visual token covers, in every checkpoint of the family."""

BROKEN_EXIT_CODE = 3

FULL_BEATS_A_LEASE = 5
LONGEST_BEAT_S = 1.0
"""A cancel reaches a running task within a heartbeat, so beats are at most a second apart."""


def run(settings: Settings, name: str) -> None:
    """Load the model, then answer tasks until SIGTERM or SIGINT.

    Raises:
        SettingsError: no queue_url is set.
        CheckpointError: the model's folder cannot be served.
        QuantizationError: the quantization that is set does not run on this machine.
        EngineMemoryError: the model and one longest request do not fit the device.
        QueueSetupError, QueueUnavailableError: the queue's server cannot be used.
    """
    if settings.queue_url is None:
        raise SettingsError("queue_url is not set: a worker alone needs the queue that it serves")
    configure_logs(name, level=settings.log_level, form=settings.log_format)
    _report(settings, WorkerStatus(name, os.getpid(), Phase.LOADING, settings.served_name))
    began = time.monotonic()
    engine = load_engine(settings)
    log.info(
        "model_warm",
        model=settings.served_name,
        after_s=round(time.monotonic() - began, 1),
        free_tokens=engine.free_tokens,
        memory=str(engine.memory),
        peak_mb=peak_memory_bytes() // 2**20,
    )
    asyncio.run(_work(settings, name, engine))


def load_engine(settings: Settings) -> Engine:
    """Load the checkpoint and run a picture through it, so that the first request is not slow.

    Raises:
        CheckpointError: the model's folder cannot be served.
        QuantizationError: the quantization that is set does not run on this machine.
    """
    choice = choice_for(
        settings.model_folder, Quantization(settings.quantization), device_named(settings.device)
    )
    log.info("quantization", kept_as=choice.quantization.value, reason=choice.reason)
    engine = Engine.from_folder(
        settings.model_folder,
        limits=engine_limits(settings),
        threads=settings.engine_threads or None,
        device=settings.device,
        quantization=choice.quantization,
    )
    engine.warm_up()
    return engine


def engine_limits(settings: Settings) -> EngineLimits:
    """Return the engine's budgets.

    Both sides of a stored picture are rounded to whole tokens; one thinner than a token is widened.
    """
    side = round(settings.image_side / PIXELS_A_TOKEN) + 1
    return EngineLimits(
        max_running=settings.max_running,
        token_budget=settings.token_budget,
        memory_share=settings.memory_share,
        context_tokens=settings.context_tokens,
        largest_image=max(side * side, MAX_ASPECT_RATIO),
    )


async def _work(settings: Settings, name: str, engine: Engine) -> None:
    assert settings.queue_url is not None
    redis = connect(settings.queue_url)
    try:
        queue = RedisQueue(redis, settings.queue_name, settings.queue_limits())
        await queue.start()
        reaped = await queue.reap(name)
        if reaped:
            log.warning("reaped_own_leases", tasks=len(reaped))
        worker = Worker(
            name,
            queue=queue,
            streams=RedisTokenStreams(redis, settings.queue_name, settings.queue_limits()),
            blobs=FolderBlobs(settings.blob_dir),
            engine=engine,
            limits=worker_limits(settings, engine.free_tokens),
            on_heartbeat=lambda one: _report(settings, _status_of(one, settings)),
        )
        with StopSignal().listening() as stop:
            await _run_unbroken(worker, stop)
    finally:
        await redis.aclose()


async def _run_unbroken(worker: Worker, stop: StopSignal) -> None:
    """Run the worker; an engine that broke ends the process, with its reason in the log."""
    broken = False
    try:
        await worker.run(stop.asked, stop.hurried)
    except* EngineBrokenError as group:
        log.critical("engine_broken", exc_info=group)
        broken = True
    if broken:
        raise SystemExit(BROKEN_EXIT_CODE)


def worker_limits(settings: Settings, free_tokens: int) -> WorkerLimits:
    """Return what a worker with an idle engine of ``free_tokens`` may take on."""
    return WorkerLimits(
        max_leases=settings.max_running + AHEAD,
        max_tokens=free_tokens,
        heartbeat_s=min(settings.lease_s / FULL_BEATS_A_LEASE, LONGEST_BEAT_S),
        drain_s=settings.drain_s,
    )


def _status_of(worker: Worker, settings: Settings) -> WorkerStatus:
    return WorkerStatus(
        name=worker.name,
        pid=os.getpid(),
        phase=worker.phase,
        model=settings.served_name,
        held=len(worker.held),
        answered=worker.publisher.tally.answered,
        failed=worker.publisher.tally.failed,
        peak_bytes=peak_memory_bytes(),
    )


def _report(settings: Settings, status: WorkerStatus) -> None:
    """Write the sign of life; a full disk must not end a worker that can still answer."""
    try:
        write_status(settings.run_dir, status)
    except OSError as error:
        log.warning("status_not_written", reason=str(error))
