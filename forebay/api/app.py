"""The web application: its routes, its middlewares in order, and its composition from settings."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI

from forebay import __version__
from forebay.access.opening import open_access
from forebay.admission.fetch import FetchBounds, PictureFetcher
from forebay.admission.held import HeldBytes
from forebay.admission.images import ImageNormaliser
from forebay.admission.policy import Limits
from forebay.admission.pool import DecoderPool, PoolLimits
from forebay.admission.profile import ModelProfile
from forebay.api import admin, chat, compat, health, infer, models, multimodal, tasks
from forebay.api import admin_log_level as log_level
from forebay.api.alerts import routes as alerts
from forebay.api.alerts.composition import alert_desk, alert_watch, first_key_expiry
from forebay.api.batches import routes as batches
from forebay.api.batches.desk import BatchDesk, BatchLimits
from forebay.api.batches.runner import BatchRunner
from forebay.api.canary import routes as canary
from forebay.api.canary.composition import canary_desk, canary_watch
from forebay.api.completions import routes as completions
from forebay.api.console import figures, limits, workers
from forebay.api.console import tasks as admin_tasks
from forebay.api.console.composition import caps_of, open_console
from forebay.api.cors import add_cors
from forebay.api.error_forms import install_error_forms
from forebay.api.files import routes as files
from forebay.api.files.folder import FileFolder
from forebay.api.files.store import FileStore
from forebay.api.front_page import FrontPageMiddleware
from forebay.api.load import LoadGauge
from forebay.api.middleware.access import AccessMiddleware
from forebay.api.middleware.access_log import AccessLogMiddleware
from forebay.api.middleware.body_limit import BodyLimitMiddleware
from forebay.api.middleware.last_resort import LastResortMiddleware
from forebay.api.middleware.request_id import RequestIdMiddleware
from forebay.api.middleware.trace import TraceMiddleware
from forebay.api.openapi import install_openapi
from forebay.api.page import install_page
from forebay.api.queue_watch import QueueWatch
from forebay.api.responses import routes as responses
from forebay.api.review.book import PromptBook
from forebay.api.route_docs import install_docs
from forebay.api.services import DoorSettings, Services
from forebay.api.shares import own_share
from forebay.api.slashes import install_slashes
from forebay.api.webhooks.composition import webhook_dispatcher, webhook_lease_s, webhook_reach
from forebay.api.webhooks.door import WebhookDoor
from forebay.api.workers_gauge import WorkersGauge
from forebay.config import Settings
from forebay.core.image_grid import GridRules
from forebay.core.neighbours import Neighbours
from forebay.logs import set_level
from forebay.ops.log_level import LevelFollower, LogLevels
from forebay.ops.metrics import SHARED, Metrics
from forebay.ops.metrics_board import MetricsBoard
from forebay.ops.telemetry import telemetry
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.reach import Reach
from forebay.queue.batches import RedisBatches
from forebay.queue.blob_places import PlacedClaims, open_blobs
from forebay.queue.blobs import FolderBlobs
from forebay.queue.blobs_redis import HeldBlobs
from forebay.queue.blobs_s3 import S3Blobs
from forebay.queue.files import RedisFiles
from forebay.queue.opening import Place, open_queue
from forebay.queue.operation import DOOR_ANSWER_S
from forebay.queue.partitioned_webhook_log import PartitionedWebhookLog
from forebay.queue.replacements import RedisReplacements
from forebay.queue.responses import RedisResponses
from forebay.queue.schema import Keys
from forebay.queue.sweep import keep_swept
from forebay.queue.webhooks import RedisWebhooks

_REDIRECTS = 3
"""Of a picture's URL; each is judged as the first."""

_FORM_BYTES = 2**16
"""What a multipart form may have around its file."""


def create_app(services: Services) -> FastAPI:
    """Return the application. Who calls it starts and stops what ``services`` holds."""
    app = FastAPI(
        title="Forebay",
        version=__version__,
        summary="Burst-proof serving for a vision-language model",
        openapi_url=None,  # the framework's own would be made while everybody waits
        docs_url=None,  # its own pages load their scripts from another host
        redoc_url=None,
    )
    app.state.services = services
    install_error_forms(app)
    app.include_router(compat.plain)  # the first is found soonest
    openai = (chat, completions, responses, models, files, batches)
    console = (figures, workers, admin_tasks, limits)
    ours = (tasks, infer, multimodal, compat, health, admin, log_level, alerts, canary)
    for route in (*openai, *ours, *console):
        app.include_router(route.router)
    install_page(app)
    install_docs(app, install_openapi(app, services.gate))
    install_slashes(app)
    # the last added is the outermost: the id is there for the log's line, the line counts even the
    # last resort's answer, browsers may read refusals too, and a body over the limit is an error of
    # the route that reads it, which only callers who may come in do
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=services.settings.max_body_bytes,
        held=services.held,
        on_disk={"/v1/files": services.settings.max_file_bytes + _FORM_BYTES},
        timeout_s=services.settings.body_timeout_s,
    )
    app.add_middleware(AccessMiddleware, gate=services.gate, metrics=services.metrics)
    add_cors(app, services.settings)
    app.add_middleware(LastResortMiddleware)
    app.add_middleware(AccessLogMiddleware, metrics=services.metrics)
    app.add_middleware(TraceMiddleware, spans=services.spans, sample=services.trace_sample)
    app.add_middleware(RequestIdMiddleware)
    if services.settings.front_pages:
        app.add_middleware(FrontPageMiddleware, pages=services.settings.front_pages)
    return app


@asynccontextmanager
async def build(
    settings: Settings, name: str = "api", neighbours: Neighbours | None = None
) -> AsyncIterator[FastAPI]:
    """Compose the application from ``settings``, with everything it needs running.

    ``name``: of this process, and of no other at its port of this machine. ``neighbours``: the
    others there.

    Raises:
        ProfileError: the model's folder cannot be read.
        PromptsError: the folder of prompt templates cannot be used.
        ValueError: no queue_url is set.
        SettingsError: the file of the webhooks' secrets cannot be read, or anyone could come in.
        AccessSetupError: a key or secret of those who may come in cannot be used.
        QueueSetupError, QueueUnavailableError: the queue's server cannot be used.
    """
    if settings.queue_url is None:
        raise ValueError("the API needs queue_url: the queue that it fills")
    settings.check_door()
    own = own_share(settings)
    profile = model_profile(settings)
    prompts = PromptBook.from_folder(settings.prompts_folder)
    # stopped in the reverse order: no decoder outlives the app, no reader its connection
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(
            open_queue(
                settings.queue_address(),
                settings.queue_name,
                settings.queue_limits(),
                partitions=settings.queue_partitions,
                answer_s=DOOR_ANSWER_S,
            )
        )
        await stack.enter_async_context(opened.streams)
        watch = await stack.enter_async_context(QueueWatch(opened.queue))
        blobs = open_blobs(settings.blob_address(), opened.places)
        claims = PlacedClaims(opened.places)
        if isinstance(blobs, S3Blobs):
            await blobs.verify()
        decoders = DecoderPool(PoolLimits(processes=own.image_processes))
        await stack.enter_async_context(decoders)
        if isinstance(blobs, FolderBlobs | S3Blobs):  # in the queue's server they expire
            first = opened.places[0]
            sweeping = keep_swept(blobs, claims, first.redis, Keys(first.name), settings.blob_ttl_s)
            stack.callback(asyncio.create_task(sweeping).cancel)
        metrics = Metrics(profile.name, settings.metrics_tenants)
        process = f"{name}-{platform.node()}-{settings.port}"
        spans = await stack.enter_async_context(telemetry(settings.telemetry(), metrics, process))
        board = MetricsBoard(opened.access, settings.queue_name, metrics.registry, process, SHARED)
        await stack.enter_async_context(board)
        held = HeldBytes(settings.max_inflight_bytes, neighbours)
        hooks = [
            RedisWebhooks(one.redis, one.name, one.limits, lease_s=webhook_lease_s(settings))
            for one in opened.places
        ]
        access = await stack.enter_async_context(
            open_access(
                settings.access_setup(settings.data_dir, settings.host),
                opened.access,
                settings.queue_name,
            )
        )
        secrets = settings.webhook_secrets()
        if secrets:
            await stack.enter_async_context(webhook_dispatcher(own, secrets, hooks, metrics))
        log_levels = LogLevels(opened.access, settings.queue_name)
        following = LevelFollower(log_levels, settings.log_level, set_level)
        await stack.enter_async_context(following)
        alerting = alert_desk(settings, opened.access, metrics)
        expiry = first_key_expiry(access.keys)
        judging = await stack.enter_async_context(
            alert_watch(settings, alerting, opened.queue, metrics, expiry)
        )
        canaries = canary_desk(settings, opened)
        await stack.enter_async_context(
            canary_watch(settings, canaries, opened.access, metrics, judging)
        )
        desk = _batch_desk(settings, opened.places[0])
        judged = alerting if settings.alerts else None
        console = await stack.enter_async_context(
            open_console(settings, opened.access, opened.queue, metrics, judged)
        )
        services = Services(
            queue=opened.queue,
            operator=opened.operator,
            streams=opened.streams,
            blobs=HeldBlobs(blobs, claims),
            holds_pictures=True,
            images=ImageNormaliser(decoders, quality=settings.image_quality),
            decoders=decoders,
            profile=profile,
            limits=door_limits(settings, profile),
            load=LoadGauge(opened.queue),
            workers=WorkersGauge(opened.queue, settings.workers_gone_s),
            watch=watch,
            settings=door_settings(settings),
            metrics=metrics,
            board=board,
            spans=spans,
            trace_sample=settings.otlp_sample,
            webhooks=WebhookDoor(webhook_reach(settings) if secrets else None),
            webhook_log=PartitionedWebhookLog(hooks) if len(hooks) > 1 else hooks[0],
            held=held,
            fetcher=picture_fetcher(own, held) if settings.fetch_urls else None,
            prompts=prompts,
            files=desk.files,
            batches=desk,
            responses=_responses(opened.places[0]),
            run_dir=settings.run_dir,
            replacements=RedisReplacements(opened.places[0].redis, opened.places[0].name),
            log_levels=log_levels,
            access=access,
            alerts=judged,
            canary=canaries,
            caps=caps_of(settings),
            console=console,
        )
        await stack.enter_async_context(BatchRunner(services, desk))
        yield create_app(services)


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


def model_profile(settings: Settings) -> ModelProfile:
    """Return the model as its folder tells; before an upstream without one, Glm4v's own rules.

    Raises:
        ProfileError: the folder cannot be read.
    """
    name, aliases = settings.served_name, settings.model_aliases
    if settings.profile_folder is None:
        context = settings.upstream_context_tokens
        return ModelProfile(name, aliases, GridRules(), context, calls=True)
    profile = ModelProfile.from_folder(settings.profile_folder, name, aliases)
    # what a server elsewhere can be offered it says itself
    return replace(profile, calls=True) if settings.upstream_url is not None else profile


def picture_fetcher(settings: Settings, held: HeldBytes) -> PictureFetcher:
    """Return what fetches pictures by URL; ``held`` counts them."""
    reach = Reach.from_words(settings.fetch_allow, settings.fetch_ports, settings.fetch_only)
    bounds = Bounds(
        total_s=settings.fetch_timeout_s,
        body_bytes=settings.fetch_max_bytes,
        redirects=_REDIRECTS,
        connections=settings.fetch_concurrency,
    )
    return PictureFetcher(
        SafeClient(reach, bounds),
        held,
        FetchBounds(
            most_bytes=settings.fetch_max_bytes,
            places=settings.fetch_concurrency,
            wait_s=settings.fetch_timeout_s,
            cache_bytes=settings.fetch_cache_bytes,
            fresh_s=settings.fetch_cache_s,
        ),
    )


def door_settings(settings: Settings) -> DoorSettings:
    """Return the door's share of the settings."""
    return DoorSettings(
        max_body_bytes=settings.max_body_bytes,
        max_file_bytes=settings.max_file_bytes,
        body_timeout_s=settings.body_timeout_s,
        image_side=settings.image_side,
        max_tokens_default=settings.max_tokens_default,
        max_tokens_limit=settings.max_tokens_limit,
        max_choices=settings.max_choices,
        answer_timeout_s=settings.answer_timeout_s,
        reuse_answers=settings.answer_cache_s > 0,
        share_answers=settings.answer_cache_shared,
        stall_s=settings.stall_s,
        health_timeout_s=settings.health_timeout_s,
        log_level=settings.log_level,
        cors_origins=settings.cors_origins,
        cors_credentials=settings.cors_credentials,
        send_timeout_s=settings.send_timeout_s,
        front_pages={getattr(settings, name): at for name, at in settings.page_ports().items()},
    )


def door_limits(settings: Settings, profile: ModelProfile) -> Limits:
    """Return what the door lets in."""
    return Limits(
        context_tokens=profile.context_tokens,
        max_waiting=settings.max_waiting,
        max_waiting_tokens=settings.max_waiting_tokens,
        max_images=settings.max_images,
        max_image_pixels=settings.max_image_pixels,
    )
