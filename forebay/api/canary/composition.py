"""Canaries from settings: the desk of the routes, and what judges them."""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis

from forebay.access.audit import AuditTrail, Deed
from forebay.api.canary.desk import CanaryDesk
from forebay.config import Settings
from forebay.ops.alerts.store import AlertStore
from forebay.ops.alerts.watch import AlertWatch
from forebay.ops.canary.watch import BY, CanaryWatch
from forebay.ops.metrics import Metrics
from forebay.queue.canary import Entry, RedisCanary
from forebay.queue.opening import OpenQueue

LEAD_S: Final = 30.0


def canary_desk(settings: Settings, opened: OpenQueue) -> CanaryDesk:
    """Return what the routes and commands work with."""
    return CanaryDesk(RedisCanary(opened.places), settings.canary_terms(), settings.canary_rollback)


def canary_watch(
    settings: Settings, desk: CanaryDesk, access: Redis, metrics: Metrics, alerts: AlertWatch
) -> CanaryWatch:
    """Return what measures canaries, and takes their share back; to be entered.

    Whoever judges alerts judges canaries; with alerts off one process takes the same lead for it.
    """
    trail = AuditTrail(access, settings.queue_name)
    store = AlertStore(access, settings.queue_name)

    async def note(entry: Entry) -> None:
        await trail.note(Deed(BY, "canary.rollback", entry["reason"], "local", "done"))

    async def leads() -> bool:
        return alerts.leads if settings.alerts else await store.lead(alerts.process, LEAD_S)

    return CanaryWatch(
        desk.canary,
        metrics,
        desk.terms,
        leads=leads,
        on_rollback=note,
        judges=desk.judges,
    )
