"""Any receiver of webhooks, by the Standard Webhooks specification, as those of tasks are."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from forebay.ops.notify.news import Item, News, PushError
from forebay.outbound.client import SafeClient
from forebay.outbound.errors import OutboundError
from forebay.outbound.signing import sign

EVENT: Final = "alerts.changed"


class PlainWebhook:
    """Posts alerts as JSON, signed by each of ``secrets_`` (at least one)."""

    name = "webhook"

    def __init__(self, client: SafeClient, url: str, secrets_: Sequence[bytes]) -> None:
        self._client = client
        self._url = url
        self._secrets = tuple(secrets_)

    async def send(self, news: News) -> None:
        """Send one message. Raises PushError."""
        now_s = int(time.time())
        body = json.dumps(_event(news, now_s), ensure_ascii=False).encode()
        message_id = f"msg_{secrets.token_hex(12)}"
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": sign(self._secrets, message_id, now_s, body),
        }
        try:
            reply = await self._client.post(self._url, headers, body)
        except OutboundError as error:
            raise PushError(str(error)) from error
        if not 200 <= reply.status < 300:
            raise PushError(f"it answered with status {reply.status}")


def _event(news: News, now_s: int) -> dict[str, object]:
    return {
        "type": EVENT,
        "timestamp": _when(now_s),
        "data": {
            "title": news.title,
            "source": news.source,
            "alerts": [_item(one) for one in news.items],
        },
    }


def _item(item: Item) -> dict[str, object]:
    return {
        "name": item.name,
        "key": item.key,
        "state": item.state,
        "text": item.text,
        "since": _when(item.since_s),
        "runbook": item.runbook,
    }


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
