"""The worker process: composition root of queue, blobs and engine."""

from __future__ import annotations

import faulthandler
import os
import platform
import time
from collections.abc import Callable

import structlog
import uvloop
from redis.asyncio import Redis

from forebay import __version__
from forebay.config import Settings, SettingsError
from forebay.engine.errors import EngineBrokenError
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.engine.upstream.transport import Address
from forebay.logs import configure_logs, set_level
from forebay.ops.alerts.reporting import MachineReporter
from forebay.ops.alerts.rules import read_rules
from forebay.ops.alerts.store import AlertStore
from forebay.ops.live.members import WorkerCard
from forebay.ops.log_level import LevelFollower, LogLevels
from forebay.ops.metrics_board import MetricsBoard
from forebay.ops.resources import Machine
from forebay.ops.telemetry import telemetry
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.ops.worker_status import (
    Phase,
    WorkerStatus,
    memory_bytes,
    peak_memory_bytes,
    touch_status,
    write_status,
)
from forebay.queue.blob_places import open_blobs
from forebay.queue.canary import RedisCanary
from forebay.queue.fleet import Fleet
from forebay.queue.groups import Group
from forebay.queue.opening import open_queue
from forebay.worker.child import TELL_SIGNAL
from forebay.worker.engine_port import MAX_UNPUBLISHED_STEPS, EnginePort
from forebay.worker.exit_codes import ExitCode
from forebay.worker.fleet_reporter import FleetReporter
from forebay.worker.fleet_worker import FleetWorker
from forebay.worker.journal import Told
from forebay.worker.signals import StopSignal
from forebay.worker.watchdog import Watchdog
from forebay.worker.worker import Worker, WorkerLimits

log = structlog.get_logger("forebay.worker")

Reserved = Callable[[], int]
"""Returns the bytes of GPU memory that the engine has reserved."""

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
    configure_logs(
        name,
        level=settings.log_level,
        form=settings.log_format,
        file=settings.log_file_terms(),
    )
    faulthandler.enable()
    faulthandler.register(TELL_SIGNAL)  # the supervisor's, before it ends what does not answer
    _report(settings, WorkerStatus(name, os.getpid(), Phase.LOADING, settings.served_name))
    metrics = WorkerMetrics(settings.served_name, name)
    if settings.upstream_url is not None:
        engine: EnginePort = upstream_engine(settings)
        limits = upstream_limits(settings)
        place = ("upstream", "")
        reserved: Reserved = lambda: 0  # noqa: E731 - it has no engine of its own
    else:
        # the only way to torch: a worker in front of an upstream runs without it
        from forebay.worker.local import load, placed, reserved_gpu_bytes  # noqa: PLC0415

        engine, free_tokens = load(settings, metrics)
        place = placed(settings)
        limits = worker_limits(settings, settings.max_running + AHEAD, free_tokens)
        reserved = reserved_gpu_bytes
    card = _card(settings, *place)
    uvloop.run(_work(settings, name, engine, limits, card, reserved, metrics))


def upstream_engine(settings: Settings) -> UpstreamEngine:
    """Return an engine that asks the server of the settings."""
    return UpstreamEngine(
        upstream_address(settings),
        unpublished=MAX_UNPUBLISHED_STEPS * settings.upstream_concurrency,
        answer_s=settings.upstream_answer_s,
        concurrency=settings.upstream_concurrency,
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
    card: WorkerCard,
    reserved: Reserved,
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
        if settings.group is Group.CANARY:
            await RedisCanary(opened.places).begin(_what_it_runs(settings))
        worker = Worker(
            name,
            queue=opened.queue,
            streams=opened.streams,
            blobs=open_blobs(settings.blob_address(), opened.places),
            engine=engine,
            limits=limits,
            on_life=lambda one: _report(settings, _status_of(one, settings, watchdog, reserved)),
            told=Told(metrics, spans),
        )
        board = MetricsBoard(opened.access, settings.queue_name, metrics.registry, name)
        with StopSignal().listening() as stop, watchdog.watching():
            of_fleet = FleetWorker(
                worker,
                engine,
                card,
                Machine(settings.data_dir),
                still_s=lambda: watchdog.engine_still_s,
                end=stop.ask,
            )
            fleet = Fleet(opened.access, settings.queue_name)
            levels = LogLevels(opened.access, settings.queue_name)
            async with (
                board,
                _machine_reporter(settings, name, opened.access, metrics),
                FleetReporter(fleet, name, of_fleet.says, of_fleet.obey),
                LevelFollower(levels, settings.log_level, set_level),
            ):
                await _run_unbroken(worker, stop, settings)
        if of_fleet.restarting:
            raise SystemExit(ExitCode.ASKED)


def _card(settings: Settings, device: str, kept_as: str) -> WorkerCard:
    return WorkerCard(
        host=platform.node(),
        pid=os.getpid(),
        started_s=time.time(),
        model=settings.served_name,
        version=__version__,
        device=device,
        quantization=kept_as,
        group=settings.worker_group,
    )


def _what_it_runs(settings: Settings) -> dict[str, str]:
    """Return what tells one canary's work from another's."""
    elsewhere = settings.upstream_url is not None
    return {
        "model": settings.served_name,
        "quantization": "upstream" if elsewhere else settings.quantization,
        "version": __version__,
    }


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


async def _run_unbroken(worker: Worker, stop: StopSignal, settings: Settings) -> None:
    """Run the worker; an engine that broke ends the process, with its reason in the log."""
    broken = False

    def drain_s() -> float:
        return settings.recycle_drain_s if stop.at_leisure else settings.drain_s

    try:
        await worker.run(stop.asked, stop.hurried, drain_s)
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
        group=settings.group,
    )


def _status_of(
    worker: Worker, settings: Settings, watchdog: Watchdog, reserved: Reserved
) -> WorkerStatus:
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
        memory_bytes=memory_bytes(),
        gpu_memory_bytes=reserved(),
    )


def _report(settings: Settings, status: WorkerStatus) -> None:
    """Write the sign of life; a full disk must not end a worker that can still answer."""
    try:
        write_status(settings.run_dir, status)
    except OSError as error:
        log.warning("status_not_written", reason=str(error))
        touch_status(settings.run_dir, status.name)
