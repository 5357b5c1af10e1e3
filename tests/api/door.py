"""A real door on a real socket, with a real queue behind it, and a worker made of a coroutine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis

from forebay.access.opening import Access
from forebay.admission.fetch import PictureFetcher
from forebay.admission.held import HeldBytes
from forebay.admission.images import ImageNormaliser
from forebay.admission.policy import Limits
from forebay.admission.pool import DecoderPool
from forebay.admission.profile import ModelProfile
from forebay.api.alerts.desk import AlertDesk
from forebay.api.app import create_app
from forebay.api.batches.desk import BatchDesk, BatchLimits
from forebay.api.batches.runner import BatchRunner
from forebay.api.canary.desk import CanaryDesk
from forebay.api.console.composition import caps_of
from forebay.api.console.desk import ConsoleDesk
from forebay.api.files.folder import FileFolder
from forebay.api.files.store import FileStore
from forebay.api.load import LoadGauge
from forebay.api.queue_watch import QueueWatch
from forebay.api.review.book import PromptBook
from forebay.api.services import DoorSettings, Services
from forebay.api.webhooks.door import WebhookDoor
from forebay.config import PACKAGE_FOLDER, Settings
from forebay.core.events import Usage
from forebay.core.image_grid import GridRules
from forebay.core.request import InferenceRequest
from forebay.ops.log_level import LogLevels
from forebay.ops.spans import NO_SPANS, Spans
from forebay.queue.batches import RedisBatches
from forebay.queue.blobs import FolderBlobs
from forebay.queue.files import RedisFiles
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import BlobStore, Lease, Outcome, StreamWrite, TaskError
from forebay.queue.redis_operator import RedisOperator
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.replacements import RedisReplacements
from forebay.queue.responses import RedisResponses
from forebay.queue.token_stream import RedisTokenStreams

MODEL = "forebay-test"
ALIASES = ("glm-4v-flash", "glm-4.6v-flash")
PROFILE = ModelProfile(MODEL, ALIASES, GridRules(), context_tokens=8192)
QUEUE_LIMITS = QueueLimits(lease_s=5.0)

USAGE = Usage(prompt_tokens=40, completion_tokens=3)


@dataclass
class Door:
    """Where to knock, and what stands behind."""

    url: str
    services: Services
    queue: RedisQueue
    streams: RedisTokenStreams
    http: httpx.AsyncClient

    async def waiting(self) -> int:
        depth = await self.queue.depth()
        return depth.waiting + depth.leased


@asynccontextmanager
async def open_door(
    redis: Redis,
    folder: Path,
    decoders: DecoderPool,
    *,
    settings: DoorSettings | None = None,
    limits: Limits | None = None,
    queue_limits: QueueLimits = QUEUE_LIMITS,
    webhooks: WebhookDoor | None = None,
    held: HeldBytes | None = None,
    fetcher: PictureFetcher | None = None,
    prompts: Path = PACKAGE_FOLDER / "prompts",
    batch_limits: BatchLimits | None = None,
    access: Access | None = None,
    alerts: AlertDesk | None = None,
    console: ConsoleDesk | None = None,
    spans: Spans = NO_SPANS,
    canary: CanaryDesk | None = None,
    blobs: BlobStore | None = None,
) -> AsyncIterator[Door]:
    queue = RedisQueue(redis, "test", queue_limits)
    await queue.start()
    async with (
        RedisTokenStreams(redis, "test", queue_limits) as streams,
        QueueWatch(queue, every_s=0.1) as watch,
    ):
        store = FileStore(RedisFiles(redis, "test"), FileFolder(folder.with_name("files")))
        desk = BatchDesk(
            RedisBatches(redis, "test", queue_limits, lease_s=3),
            store,
            folder.with_name("batches"),
            batch_limits or BatchLimits(),
        )
        services = Services(
            queue=queue,
            operator=RedisOperator(redis, "test", queue_limits),
            streams=streams,
            blobs=blobs or FolderBlobs(folder),
            images=ImageNormaliser(decoders),
            decoders=decoders,
            profile=PROFILE,
            limits=limits or Limits(context_tokens=PROFILE.context_tokens),
            load=LoadGauge(queue, max_age_s=0),
            watch=watch,
            settings=settings or DoorSettings(),
            webhooks=webhooks or WebhookDoor(),
            held=held or HeldBytes(),
            fetcher=fetcher,
            prompts=PromptBook.from_folder(prompts),
            files=desk.files,
            batches=desk,
            responses=RedisResponses(redis, "test"),
            run_dir=folder.with_name("run"),
            replacements=RedisReplacements(redis, "test"),
            log_levels=LogLevels(redis, "test"),
            access=access,
            alerts=alerts,
            console=console,
            caps=caps_of(Settings()),
            spans=spans,
            canary=canary,
        )
        async with (
            BatchRunner(services, desk),
            listening(create_app(services)) as url,
            httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http,
        ):
            yield Door(url, services, queue, streams, http)


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


Reply = Callable[[InferenceRequest], Sequence[str] | TaskError]


def say(*deltas: str) -> Reply:
    return lambda _request: deltas


@dataclass
class FakeEngineWorker:
    """Claims from the real queue, writes the reply's deltas to the real stream, finishes."""

    door: Door
    reply: Reply = field(default_factory=lambda: say("The ", "price ", "is 12."))
    seen: list[InferenceRequest] = field(default_factory=list)

    async def run(self) -> None:
        queue = self.door.queue
        while True:
            await queue.heartbeat("fake", [])
            for lease in await queue.claim("fake", 16, 10**9):
                self.seen.append(lease.request)
                await self._answer(lease)
            await queue.wait_for_work(0.05)

    async def _answer(self, lease: Lease) -> None:
        reply = self.reply(lease.request)
        outcome = Outcome(lease.task_id, lease.fence, usage=USAGE)
        if isinstance(reply, TaskError):
            outcome = Outcome(lease.task_id, lease.fence, error=reply)
        else:
            for delta in reply:
                write = StreamWrite(lease.task_id, lease.fence, delta, 1)
                await self.door.streams.append([write])
            outcome = Outcome(lease.task_id, lease.fence, text="".join(reply), usage=USAGE)
        await self.door.queue.finish([outcome])


@asynccontextmanager
async def working(door: Door, reply: Reply | None = None) -> AsyncIterator[FakeEngineWorker]:
    worker = FakeEngineWorker(door) if reply is None else FakeEngineWorker(door, reply)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def data_url(content: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


async def eventually(condition: Callable[[], object]) -> None:
    """Return when ``condition`` holds (it may be a coroutine function); give up after 10 s."""
    async with asyncio.timeout(10):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)
