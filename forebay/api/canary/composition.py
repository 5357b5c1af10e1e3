"""Canaries from settings: the desk of the routes, and what judges them."""

from __future__ import annotations

import os
import platform
import secrets

from redis.asyncio import Redis

from forebay.access.audit import AuditTrail, Deed
from forebay.api.canary.desk import CanaryDesk
from forebay.config import Settings
from forebay.ops.alerts.store import AlertStore
from forebay.ops.canary.watch import BY, CanaryWatch
from forebay.ops.metrics import Metrics
from forebay.queue.canary import Entry, RedisCanary
from forebay.queue.opening import OpenQueue


def canary_desk(settings: Settings, opened: OpenQueue) -> CanaryDesk:
    """Return what the routes and commands work with."""
    return CanaryDesk(RedisCanary(opened.places), settings.canary_terms(), settings.canary_rollback)


def process_name() -> str:
    """Return a name that no other process has, for the lead of alerts."""
    return f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"


def canary_watch(
    settings: Settings, desk: CanaryDesk, access: Redis, metrics: Metrics, process: str
) -> CanaryWatch:
    """Return what measures canaries, and takes their share back; to be entered."""
    trail = AuditTrail(access, settings.queue_name)

    async def note(entry: Entry) -> None:
        await trail.note(Deed(BY, "canary.rollback", entry["reason"], "local", "done"))

    return CanaryWatch(
        desk.canary,
        AlertStore(access, settings.queue_name),
        metrics,
        desk.terms,
        process=process,
        on_rollback=note,
        judges=desk.judges,
    )
