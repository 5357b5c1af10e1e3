"""The door's parts, opened from the settings: what runs behind the application's routes."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

from forebay.access.opening import Access, open_access
from forebay.admission.fetch import PictureFetcher
from forebay.admission.held import HeldBytes
from forebay.admission.images import ImageNormaliser
from forebay.admission.pool import DecoderPool, PoolLimits
from forebay.api.alerts.composition import alert_desk, alert_watch, first_key_expiry
from forebay.api.alerts.desk import AlertDesk
from forebay.api.batches.desk import BatchDesk, BatchLimits
from forebay.api.batches.runner import BatchRunner
from forebay.api.canary.composition import canary_desk, canary_watch
from forebay.api.canary.desk import CanaryDesk
from forebay.api.console.composition import caps_of, open_console
from forebay.api.console.desk import ConsoleDesk
from forebay.api.files.folder import FileFolder
from forebay.api.files.store import FileStore
from forebay.api.from_settings import door_limits, door_settings, model_profile, picture_fetcher
from forebay.api.load import LoadGauge
from forebay.api.queue_watch import QueueWatch
from forebay.api.review.book import PromptBook
from forebay.api.services import Services
from forebay.api.shares import own_share
from forebay.api.webhooks.composition import webhook_dispatcher, webhook_lease_s, webhook_reach
from forebay.api.webhooks.door import WebhookDoor
from forebay.api.workers_gauge import WorkersGauge
from forebay.config import Settings
from forebay.core.neighbours import Neighbours
from forebay.logs import set_level
from forebay.ops.log_level import LevelFollower, LogLevels
from forebay.ops.metrics import SHARED, Metrics
from forebay.ops.metrics_board import MetricsBoard
from forebay.ops.spans import Spans
from forebay.ops.telemetry import telemetry
from forebay.queue.batches import RedisBatches
from forebay.queue.blob_places import PlacedClaims, open_blobs
from forebay.queue.blobs import FolderBlobs
from forebay.queue.blobs_redis import HeldBlobs
from forebay.queue.blobs_s3 import S3Blobs
from forebay.queue.files import RedisFiles
from forebay.queue.opening import OpenQueue, Place, open_queue
from forebay.queue.operation import DOOR_ANSWER_S
from forebay.queue.partitioned_webhook_log import PartitionedWebhookLog
from forebay.queue.replacements import RedisReplacements
from forebay.queue.responses import RedisResponses
from forebay.queue.schema import Keys
from forebay.queue.sweep import BlobSweeper
from forebay.queue.webhook_ports import WebhookLog
from forebay.queue.webhooks import RedisWebhooks

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Opening:
    """What the parts are opened with. ``own``: the settings with this process's even share."""

    stack: AsyncExitStack
    settings: Settings
    own: Settings
    opened: OpenQueue
    metrics: Metrics

    async def run(self, part: AbstractAsyncContextManager[T]) -> T:
        """Start a part; it is stopped before those that were started earlier."""
        return await self.stack.enter_async_context(part)

    @property
    def first(self) -> Place:
        """The partition beside whose tasks lies what is the whole queue's."""
        return self.opened.places[0]


@dataclass(frozen=True, slots=True)
class _Pictures:
    blobs: HeldBlobs
    decoders: DecoderPool
    images: ImageNormaliser
    held: HeldBytes
    fetcher: PictureFetcher | None

    @classmethod
    async def open(cls, at: _Opening, neighbours: Neighbours | None) -> Self:
        settings = at.settings
        blobs = open_blobs(settings.blob_address(), at.opened.places)
        claims = PlacedClaims(at.opened.places)
        if isinstance(blobs, S3Blobs):
            await blobs.verify()
        decoders = DecoderPool(PoolLimits(processes=at.own.image_processes))
        await at.run(decoders)
        if isinstance(blobs, FolderBlobs | S3Blobs):  # in the queue's server they expire
            keys = Keys(at.first.name)
            await at.run(BlobSweeper(blobs, claims, at.first.redis, keys, settings.blob_ttl_s))
        held = HeldBytes(settings.max_inflight_bytes, neighbours)
        return cls(
            HeldBlobs(blobs, claims),
            decoders,
            ImageNormaliser(decoders, quality=settings.image_quality),
            held,
            picture_fetcher(at.own, held) if settings.fetch_urls else None,
        )


@dataclass(frozen=True, slots=True)
class _Webhooks:
    door: WebhookDoor
    log: WebhookLog

    @classmethod
    async def open(cls, at: _Opening) -> Self:
        hooks = [
            RedisWebhooks(one.redis, one.name, one.limits, lease_s=webhook_lease_s(at.settings))
            for one in at.opened.places
        ]
        secrets = at.settings.webhook_secrets()
        if secrets:
            await at.run(webhook_dispatcher(at.own, secrets, hooks, at.metrics))
        reach = webhook_reach(at.settings) if secrets else None
        return cls(WebhookDoor(reach), PartitionedWebhookLog(hooks) if len(hooks) > 1 else hooks[0])


@dataclass(frozen=True, slots=True)
class _Operation:
    """What operators look at and act by."""

    spans: Spans
    board: MetricsBoard
    access: Access
    log_levels: LogLevels
    alerts: AlertDesk | None
    canary: CanaryDesk
    console: ConsoleDesk

    @classmethod
    async def open(cls, at: _Opening, process: str) -> Self:
        settings, metrics, redis = at.settings, at.metrics, at.opened.access
        spans = await at.run(telemetry(settings.telemetry(), metrics, process))
        board = MetricsBoard(redis, settings.queue_name, metrics.registry, process, SHARED)
        await at.run(board)
        setup = settings.access_setup(settings.data_dir, settings.host)
        access = await at.run(open_access(setup, redis, settings.queue_name))
        levels = LogLevels(redis, settings.queue_name)
        await at.run(LevelFollower(levels, settings.log_level, set_level))
        alerts = alert_desk(settings, redis, metrics)
        expiry = first_key_expiry(access.keys)
        judging = await at.run(alert_watch(settings, alerts, at.opened.queue, metrics, expiry))
        canary = canary_desk(settings, at.opened)
        await at.run(canary_watch(settings, canary, redis, metrics, judging))
        judged = alerts if settings.alerts else None
        console = await at.run(open_console(settings, redis, at.opened.queue, metrics, judged))
        return cls(spans, board, access, levels, judged, canary, console)


@asynccontextmanager
async def open_services(
    settings: Settings, name: str, neighbours: Neighbours | None
) -> AsyncIterator[Services]:
    """Open what the routes need, with all of it running; raises as ``forebay.api.app.build``."""
    if settings.queue_url is None:
        raise ValueError("the API needs queue_url: the queue that it fills")
    settings.check_door()
    profile = model_profile(settings)
    prompts = PromptBook.from_folder(settings.prompts_folder)
    # stopped in the reverse order: no decoder outlives the app, no reader its connection
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(_queue_of(settings))
        await stack.enter_async_context(opened.streams)
        watch = await stack.enter_async_context(QueueWatch(opened.queue))
        metrics = Metrics(profile.name, settings.metrics_tenants)
        at = _Opening(stack, settings, own_share(settings), opened, metrics)
        operation = await _Operation.open(at, f"{name}-{platform.node()}-{settings.port}")
        pictures, webhooks = await _Pictures.open(at, neighbours), await _Webhooks.open(at)
        desk = _batch_desk(settings, at.first)
        services = Services(
            queue=opened.queue,
            operator=opened.operator,
            streams=opened.streams,
            blobs=pictures.blobs,
            holds_pictures=True,
            images=pictures.images,
            decoders=pictures.decoders,
            profile=profile,
            limits=door_limits(settings, profile),
            load=LoadGauge(opened.queue),
            workers=WorkersGauge(opened.queue, settings.workers_gone_s),
            watch=watch,
            settings=door_settings(settings),
            metrics=metrics,
            board=operation.board,
            spans=operation.spans,
            trace_sample=settings.otlp_sample,
            webhooks=webhooks.door,
            webhook_log=webhooks.log,
            held=pictures.held,
            fetcher=pictures.fetcher,
            prompts=prompts,
            files=desk.files,
            batches=desk,
            responses=_responses(at.first),
            run_dir=settings.run_dir,
            replacements=RedisReplacements(at.first.redis, at.first.name),
            log_levels=operation.log_levels,
            access=operation.access,
            alerts=operation.alerts,
            canary=operation.canary,
            caps=caps_of(settings),
            console=operation.console,
        )
        await stack.enter_async_context(BatchRunner(services, desk))
        yield services


def _queue_of(settings: Settings) -> AbstractAsyncContextManager[OpenQueue]:
    return open_queue(
        settings.queue_address(),
        settings.queue_name,
        settings.queue_limits(),
        partitions=settings.queue_partitions,
        answer_s=DOOR_ANSWER_S,
    )


def _responses(place: Place) -> RedisResponses:
    """Return where responses are kept, beside the first partition's tasks."""
    ttl_s = place.limits.result_ttl_s
    return RedisResponses(place.redis, place.name, result_ttl_s=ttl_s)


def _batch_desk(settings: Settings, place: Place) -> BatchDesk:
    """Return where batches and files are kept: their records beside the first partition's tasks."""
    return BatchDesk(
        RedisBatches(place.redis, place.name, place.limits),
        FileStore(
            RedisFiles(place.redis, place.name),
            FileFolder(settings.files_dir, settings.files_bytes),
        ),
        settings.batches_dir,
        BatchLimits(settings.batch_lines, settings.batch_window),
    )
