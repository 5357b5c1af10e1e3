"""The console's desk from settings."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from forebay.api.alerts.desk import AlertDesk
from forebay.api.console.desk import ConsoleDesk, fleet_object
from forebay.api.console.feed import Feed
from forebay.config import Settings
from forebay.ops.live.counted import counted
from forebay.ops.live.light import firing_of
from forebay.ops.live.pulse import Firing, LivePulse, PulseTerms, Sources
from forebay.ops.metrics import Metrics
from forebay.ops.resources import Machine
from forebay.queue.fleet import Fleet
from forebay.queue.live import LiveStore
from forebay.queue.ports import Submitter


@asynccontextmanager
async def open_console(
    settings: Settings, redis: Redis, queue: Submitter, metrics: Metrics, alerts: AlertDesk | None
) -> AsyncIterator[ConsoleDesk]:
    """Take figures and tell them for the length of the block."""
    fleet, machine = Fleet(redis, settings.queue_name), Machine(settings.data_dir)

    async def count() -> dict[str, Any]:
        return counted(metrics, await asyncio.to_thread(machine.read))

    async def firing() -> Firing:
        if alerts is None:
            return []
        now_s, store = time.time(), alerts.store
        found, silences = await store.alerts(), await store.silences(now_s)
        return firing_of(found.values(), silences, alerts.rules, now_s)

    async def look() -> dict[str, Any]:
        return fleet_object(await fleet.members(), settings.stall_s)

    pulse = LivePulse(
        LiveStore(redis, settings.queue_name),
        Sources(count, firing, queue, fleet),
        PulseTerms(
            f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}",
            limits_of(settings),
            settings.alert_gpu_memory_limit,
            settings.stall_s,
        ),
    )
    async with pulse, Feed(pulse, look) as feed:
        yield ConsoleDesk(pulse, feed, fleet, settings.stall_s)


def limits_of(settings: Settings) -> dict[str, float]:
    """Return where each figure is too much: the thresholds of alerts, and no others."""
    return {
        "gpu_use": settings.alert_gpu_use,
        "gpu_memory_share": settings.alert_gpu_memory,
        "cpu": settings.alert_cpu,
        "memory": settings.alert_memory,
        "disk": settings.alert_disk,
        "queue_length": float(settings.alert_queue_waiting),
        "oldest_age_s": settings.alert_queue_oldest_s,
        "latency_p95_s": settings.alert_latency_s,
    }


_CAPS = (
    "max_waiting", "max_waiting_tokens", "tenant_max_waiting", "tenant_max_waiting_tokens",
    "tenant_rate_per_s", "tenant_burst", "max_body_bytes", "max_inflight_bytes", "max_file_bytes",
    "max_images", "max_image_pixels", "max_tokens_limit", "max_choices", "answer_timeout_s",
    "result_ttl_s", "max_deliveries", "lease_s", "batch_lines", "files_bytes",
)  # fmt: skip


def caps_of(settings: Settings) -> dict[str, float | None]:
    """Return the limits in force by the names of their settings; None: there is none."""
    return {name: getattr(settings, name) for name in _CAPS}
