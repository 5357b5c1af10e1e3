"""One attempt: what is sent, and what its outcome means."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from forebay.api.webhooks.schedule import RetrySchedule
from forebay.outbound.client import SafeClient
from forebay.outbound.errors import OutboundError
from forebay.outbound.signing import sign
from forebay.queue.ports import TaskRecord
from forebay.queue.webhook_ports import WebhookAttempt, WebhookLease

DELIVERED: Final = "delivered"
GONE: Final = "gone"
ANSWERED: Final = "answered"
LOST: Final = "dispatcher_lost"

_GONE_STATUS: Final = 410

TaskForm = Callable[[TaskRecord], Mapping[str, Any]]
"""Makes of a task what its clients see."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Sends webhooks, one attempt a call."""

    client: SafeClient
    secrets: Sequence[bytes]
    form: TaskForm
    schedule: RetrySchedule

    async def attempt(self, lease: WebhookLease) -> WebhookAttempt:
        """Post a webhook; return what became of it, with the pause before the next attempt."""
        if lease.attempt > self.schedule.tries:
            return WebhookAttempt(LOST)  # each attempt was begun, and by the last no word came back
        body = body_of(self.form(lease.task))
        headers = headers_of(lease.task, self.secrets, round(time.time()), body)
        began = time.monotonic()
        try:
            reply = await self.client.post(lease.url, headers, body)
        except OutboundError as error:
            return self._failed(lease, error.reason, None, began, None)
        if 200 <= reply.status < 300:
            return WebhookAttempt(DELIVERED, reply.status, _since(began))
        if reply.status == _GONE_STATUS:
            return WebhookAttempt(GONE, reply.status, _since(began))
        asked_s = retry_after_s(reply.headers.get("retry-after"))
        return self._failed(lease, ANSWERED, reply.status, began, asked_s)

    def _failed(
        self,
        lease: WebhookLease,
        outcome: str,
        status: int | None,
        began: float,
        asked_s: float | None,
    ) -> WebhookAttempt:
        pause_s = self.schedule.pause_s(lease.attempt, asked_s)
        return WebhookAttempt(outcome, status, _since(began), pause_s)


def message_id(task: TaskRecord) -> str:
    """Return what tells one event from another: the same in every attempt to deliver it."""
    return f"{task.task_id}-{task.state}"


def body_of(task_object: Mapping[str, Any]) -> bytes:
    """Return the bytes that are sent and signed."""
    return json.dumps(task_object, ensure_ascii=False, separators=(",", ":")).encode()


def headers_of(
    task: TaskRecord, secrets: Sequence[bytes], timestamp: int, body: bytes
) -> dict[str, str]:
    """Return the headers of an attempt that is made at ``timestamp`` (seconds since the epoch)."""
    event = message_id(task)
    return {
        "Content-Type": "application/json",
        "webhook-id": event,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, event, timestamp, body),
    }


def retry_after_s(value: str | None) -> float | None:
    """Read a ``Retry-After``: seconds or a date. None for what is neither."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdecimal():
        return float(value.strip()[:9])
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
