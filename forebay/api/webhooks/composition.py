"""Webhooks from settings: what the door needs, and the dispatcher."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.api.task_object import task_object
from forebay.api.webhooks.delivery import Delivery
from forebay.api.webhooks.dispatcher import DispatchLimits, WebhookDispatcher
from forebay.api.webhooks.schedule import RetrySchedule
from forebay.config import Settings
from forebay.ops.metrics import Metrics
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.reach import Reach
from forebay.queue.webhook_ports import Webhooks

LEASE_MARGIN_S = 30.0
"""What a dispatcher has, past the time of an attempt, to say what became of it."""


def webhook_lease_s(settings: Settings) -> float:
    """Return how long a dispatcher may have a webhook in hand before another takes it."""
    return settings.webhook_timeout_s + LEASE_MARGIN_S


def webhook_reach(settings: Settings) -> Reach:
    """Return where webhooks may go."""
    return Reach.from_words(settings.webhook_allow, settings.webhook_ports)


def webhook_dispatcher(
    settings: Settings, secrets: Sequence[bytes], queues: Sequence[Webhooks], metrics: Metrics
) -> WebhookDispatcher:
    """Return the dispatcher of an API process, to be entered. ``secrets``: at least one."""
    bounds = Bounds(
        total_s=settings.webhook_timeout_s, body_bytes=0, connections=settings.webhook_concurrency
    )
    delivery = Delivery(
        SafeClient(webhook_reach(settings), bounds),
        secrets,
        task_object,
        RetrySchedule(settings.webhook_tries),
    )
    limits = DispatchLimits(settings.webhook_concurrency, settings.webhook_host_concurrency)
    return WebhookDispatcher(queues, delivery, metrics, limits)
