"""What the routes work with. Built by a composition root, handed to ``create_app``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from forebay.access.gate import Gate
from forebay.access.opening import Access
from forebay.admission.fetch import PictureFetcher
from forebay.admission.held import HeldBytes
from forebay.admission.images import ImageNormaliser
from forebay.admission.policy import Limits
from forebay.admission.pool import DecoderPool
from forebay.admission.profile import ModelProfile
from forebay.api.alerts.desk import AlertDesk
from forebay.api.batches.desk import BatchDesk
from forebay.api.canary.desk import CanaryDesk
from forebay.api.console.desk import ConsoleDesk
from forebay.api.files.store import FileStore
from forebay.api.load import LoadGauge
from forebay.api.momentary import Momentary
from forebay.api.probed import Probed
from forebay.api.queue_watch import QueueWatch
from forebay.api.review.book import PromptBook
from forebay.api.stored_lately import StoredLately
from forebay.api.webhooks.door import WebhookDoor
from forebay.api.workers_gauge import WorkersGauge
from forebay.ops.log_level import Level, LogLevels
from forebay.ops.metrics import Metrics
from forebay.ops.metrics_board import MetricsBoard
from forebay.ops.spans import NO_SPANS, Spans
from forebay.queue.ports import BlobStore, Operator, StreamReader, Submitter
from forebay.queue.replacements import RedisReplacements
from forebay.queue.responses import RedisResponses
from forebay.queue.webhook_ports import WebhookLog

AT_THE_QUEUE: Final = 32
"""Requests that write to the queue's server at once. In a burst the others wait for their turn in
peace: a call has under a second, and with a thousand under way each would spend it waiting for the
event loop and for a connection."""

PROBE_FRESH_S: Final = 5.0
"""What the model answered to a question about its health holds for so long, so that nobody can
keep it busy by asking."""


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """The door's own numbers. Times in seconds, sizes in bytes, sides in pixels."""

    max_body_bytes: int = 20 * 2**20
    max_file_bytes: int = 100 * 2**20
    body_timeout_s: float = 60.0
    image_side: int = 1024
    image_quality: int = 85
    max_tokens_default: int = 256
    max_tokens_limit: int = 2048
    max_choices: int = 8
    answer_timeout_s: float = 600.0
    reuse_answers: bool = False
    """Whether equal requests at temperature 0 share a run, and its answer for a while."""
    share_answers: bool = False
    """Whether they do so across tenants."""
    keep_alive_s: float = 10.0
    """Between two comments that keep a silent event stream open."""
    send_timeout_s: float = 30.0
    """A client that does not read its event stream for so long is dropped."""
    stall_s: float = 10.0
    """For how long a worker's engine may stand still with work."""
    health_timeout_s: float = 15.0
    """What the model has to answer a question about its health."""
    log_level: Level = "info"
    """What is logged while nobody wants another level."""
    cors_origins: tuple[str, ...] = ()
    cors_credentials: bool = False
    front_pages: Mapping[int, str] = field(default_factory=dict)
    """Ports of pages -> the path that is met there at the root."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything outside HTTP that the door uses."""

    queue: Submitter
    operator: Operator
    streams: StreamReader
    blobs: BlobStore
    images: ImageNormaliser
    decoders: DecoderPool
    profile: ModelProfile
    limits: Limits
    load: LoadGauge
    watch: QueueWatch
    workers: WorkersGauge | None = None
    """Whether anybody answers; None: requests are taken in any case."""
    settings: DoorSettings = field(default_factory=DoorSettings)
    metrics: Metrics = field(default_factory=Metrics)
    board: MetricsBoard | None = None
    """The metrics of every process of the queue; None: this one's are shown alone."""
    spans: Spans = NO_SPANS
    trace_sample: float = 1.0
    """Share of the traces that begin here that is kept."""
    webhooks: WebhookDoor = field(default_factory=WebhookDoor)
    webhook_log: WebhookLog | None = None
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_THE_QUEUE))
    """Taken to write to the queue's server, each time anew."""
    holds_pictures: bool = False
    """Whether ``blobs`` claims what it stores, so that the queue can insist on it."""
    held: HeldBytes = field(default_factory=HeldBytes)
    stored: StoredLately = field(default_factory=StoredLately)
    fetcher: PictureFetcher | None = None
    """Pictures by URL; None: they are not fetched here."""
    prompts: PromptBook = field(default_factory=PromptBook)
    files: FileStore | None = None
    batches: BatchDesk | None = None
    responses: RedisResponses | None = None
    alerts: AlertDesk | None = None
    """None: no rules are judged here."""
    caps: Mapping[str, float | None] = field(default_factory=dict)
    """The limits in force, by the names of their settings, as administrators read them."""
    console: ConsoleDesk | None = None
    """None: no figures are taken here; for a door within a test or a bench."""
    canary: CanaryDesk | None = None
    """None: for a door within a test."""
    run_dir: Path | None = None
    """Where this machine's workers give signs of life; None: nobody looks for them."""
    replacements: RedisReplacements | None = None
    probed: Momentary[Probed] = field(default_factory=lambda: Momentary(PROBE_FRESH_S))
    log_levels: LogLevels | None = None
    """None: nobody follows what is wanted of the log."""
    access: Access | None = None
    """None: anyone may come in, and there are no keys; for a door within a test or a bench."""

    @property
    def gate(self) -> Gate:
        """What callers pass."""
        return self.access.gate if self.access else Gate()
