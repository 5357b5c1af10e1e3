"""The worker process: composition root of queue, blobs and engine."""

from __future__ import annotations

import faulthandler
import os

import structlog
import uvloop
from redis.asyncio import Redis

from forebay.config import Settings, SettingsError
from forebay.engine.errors import EngineBrokenError
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.engine.upstream.transport import Address
from forebay.logs import configure_logs
from forebay.ops.alerts.reporting import MachineReporter
from forebay.ops.alerts.rules import read_rules
from forebay.ops.alerts.store import AlertStore
from forebay.ops.metrics_board import MetricsBoard
from forebay.ops.resources import Machine
from forebay.ops.telemetry import telemetry
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.ops.worker_status import (
    Phase,
    WorkerStatus,
    peak_memory_bytes,
    touch_status,
    write_status,
)
from forebay.queue.blob_places import open_blobs
from forebay.queue.opening import open_queue
from forebay.worker.child import TELL_SIGNAL
from forebay.worker.engine_port import MAX_UNPUBLISHED_STEPS, EnginePort
from forebay.worker.exit_codes import ExitCode
from forebay.worker.journal import Told
from forebay.worker.signals import StopSignal
from forebay.worker.watchdog import Watchdog
from forebay.worker.worker import Worker, WorkerLimits

log = structlog.get_logger("forebay.worker")

AHEAD = 4
"""Leases beyond what the engine runs, so that the next requests are prepared meanwhile."""

FULL_BEATS_A_LEASE = 5
LONGEST_BEAT_S = 1.0
"""A cancel reaches a running task within a heartbeat, so beats are at most a second apart."""


def run(settings: Settings, name: str) -> None:
    """Load the model, or look to the upstream, then answer tasks until SIGTERM or SIGINT.

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
    faulthandler.enable()
    faulthandler.register(TELL_SIGNAL)  # the supervisor's, before it ends what does not answer
    _report(settings, WorkerStatus(name, os.getpid(), Phase.LOADING, settings.served_name))
    metrics = WorkerMetrics(settings.served_name, name)
    if settings.upstream_url is not None:
        engine: EnginePort = upstream_engine(settings)
        limits = upstream_limits(settings)
    else:
        # the only way to torch: a worker in front of an upstream runs without it
        from forebay.worker.local import load  # noqa: PLC0415

        engine, free_tokens = load(settings, metrics)
        limits = worker_limits(settings, settings.max_running + AHEAD, free_tokens)
    uvloop.run(_work(settings, name, engine, limits, metrics))


def upstream_engine(settings: Settings) -> UpstreamEngine:
    """Return an engine that asks the server of the settings."""
    return UpstreamEngine(
        upstream_address(settings),
        unpublished=MAX_UNPUBLISHED_STEPS * settings.upstream_concurrency,
        answer_s=settings.upstream_answer_s,
    )


def upstream_address(settings: Settings) -> Address:
    """Return where the upstream is, and how long to wait for it."""
    assert settings.upstream_url is not None
    return Address(
        settings.upstream_url,
        settings.upstream_model,
        settings.secret_of("upstream_api_key") or "",
        connect_s=settings.upstream_connect_s,
        idle_s=settings.upstream_idle_s,
    )


def upstream_limits(settings: Settings) -> WorkerLimits:
    """Return what a worker takes on for an upstream: no more than it has running there.

    What the upstream's memory bears is its own business, so tokens do not bind before tasks do.
    """
    slots = settings.upstream_concurrency
    return worker_limits(settings, slots, slots * settings.upstream_context_tokens)


async def _work(
    settings: Settings,
    name: str,
    engine: EnginePort,
    limits: WorkerLimits,
    metrics: WorkerMetrics,
) -> None:
    watchdog = Watchdog(lambda: engine.marks, settings.stall_s)
    async with (
        open_queue(
            settings.queue_address(),
            settings.queue_name,
            settings.queue_limits(),
            partitions=settings.queue_partitions,
        ) as opened,
        telemetry(settings.telemetry(), metrics, name) as spans,
    ):
        reaped = await opened.queue.reap(name)
        if reaped:
            log.warning("reaped_own_leases", tasks=len(reaped))
        worker = Worker(
            name,
            queue=opened.queue,
            streams=opened.streams,
            blobs=open_blobs(settings.blob_address(), opened.places),
            engine=engine,
            limits=limits,
            on_life=lambda one: _report(settings, _status_of(one, settings, watchdog)),
            told=Told(metrics, spans),
        )
        board = MetricsBoard(opened.access, settings.queue_name, metrics.registry, name)
        with StopSignal().listening() as stop, watchdog.watching():
            async with board, _machine_reporter(settings, name, opened.access, metrics):
                await _run_unbroken(worker, stop)


def _machine_reporter(
    settings: Settings, name: str, redis: Redis, metrics: WorkerMetrics
) -> MachineReporter:
    """Return what tells the API how this machine is."""
    return MachineReporter(
        AlertStore(redis, settings.queue_name),
        read_rules(settings.alert_thresholds()),
        Machine(settings.data_dir),
        f"{name}:{os.getpid()}",
        every_s=settings.alert_every_s,
        book=metrics,
    )


async def _run_unbroken(worker: Worker, stop: StopSignal) -> None:
    """Run the worker; an engine that broke ends the process, with its reason in the log."""
    broken = False
    try:
        await worker.run(stop.asked, stop.hurried)
    except* EngineBrokenError as group:
        log.critical("engine_broken", exc_info=group)
        broken = True
    if broken:
        raise SystemExit(ExitCode.ENGINE_BROKEN)


def worker_limits(settings: Settings, max_leases: int, max_tokens: int) -> WorkerLimits:
    """Return what a worker takes on, as the settings have the rest."""
    return WorkerLimits(
        max_leases=max_leases,
        max_tokens=max_tokens,
        heartbeat_s=min(settings.lease_s / FULL_BEATS_A_LEASE, LONGEST_BEAT_S),
        drain_s=settings.drain_s,
    )


def _status_of(worker: Worker, settings: Settings, watchdog: Watchdog) -> WorkerStatus:
    worker.metrics.see_life(
        worker.phase,
        held=len(worker.held),
        free_tokens=worker.held.free_tokens,
        still_s=watchdog.engine_still_s,
    )
    return WorkerStatus(
        name=worker.name,
        pid=os.getpid(),
        phase=worker.phase,
        model=settings.served_name,
        held=len(worker.held),
        answered=worker.publisher.tally.answered,
        failed=worker.publisher.tally.failed,
        peak_bytes=peak_memory_bytes(),
        still_s=watchdog.engine_still_s,
    )


def _report(settings: Settings, status: WorkerStatus) -> None:
    """Write the sign of life; a full disk must not end a worker that can still answer."""
    try:
        write_status(settings.run_dir, status)
    except OSError as error:
        log.warning("status_not_written", reason=str(error))
        touch_status(settings.run_dir, status.name)
