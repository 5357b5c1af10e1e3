"""A dispatcher as the tests run it; also as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from forebay.api.task_object import task_object
from forebay.api.webhooks.delivery import Delivery
from forebay.api.webhooks.dispatcher import DispatchLimits, WebhookDispatcher
from forebay.api.webhooks.schedule import RetrySchedule
from forebay.ops.metrics import Metrics
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.reach import Reach
from forebay.outbound.signing import read_secrets
from forebay.queue.connection import connect
from forebay.queue.webhooks import RedisWebhooks

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB3ZWJob29rcw=="
OLD_SECRET = "whsec_" + "dGhlIHNlY3JldCB0aGF0IGhhcyBiZWVuIHJlcGxhY2Vk"
QUICK = RetrySchedule(tries=4, first_s=0.05, factor=1.0)


def dispatcher(
    hooks: RedisWebhooks,
    ports: Sequence[int],
    *,
    metrics: Metrics | None = None,
    schedule: RetrySchedule = QUICK,
    total_s: float = 5.0,
    **limits: float,
) -> WebhookDispatcher:
    reach = Reach.from_words(["127.0.0.0/8"], ports)
    client = SafeClient(reach, Bounds(total_s=total_s))
    delivery = Delivery(client, read_secrets(f"{SECRET} {OLD_SECRET}"), task_object, schedule)
    told = DispatchLimits(**{"idle_s": 0.02, "stop_s": 0.5} | limits)
    return WebhookDispatcher([hooks], delivery, metrics or Metrics(), told)


@asynccontextmanager
async def dispatching(redis_url: str, queue: str, port: int) -> AsyncIterator[None]:
    redis = connect(redis_url)
    hooks = RedisWebhooks(redis, queue, lease_s=1.0)
    async with dispatcher(hooks, [port], total_s=30.0):
        yield
    await redis.aclose()


async def main(redis_url: str, queue: str, port: str) -> None:
    async with dispatching(redis_url, queue, int(port)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
