"""Short forms of what tests of the queue need over and over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from forebay.core.request import (
    Cost,
    ImagePart,
    InferenceRequest,
    Message,
    Priority,
    Role,
    TaskId,
    Tenant,
    TextPart,
)
from forebay.queue.ports import Lease, NewTask, Outcome
from forebay.queue.schema import KEY_NAMES, Keys

PLENTY = 10**9


def request(text: str = "价格是多少?") -> InferenceRequest:
    return InferenceRequest("demo", (Message(Role.USER, (TextPart(text),)),))


def task(
    name: str,
    *,
    tenant: str = "default",
    priority: Priority = Priority.NORMAL,
    cost: int = 10,
    **more: Any,
) -> NewTask:
    return NewTask(TaskId(name), request(), Cost(0, cost, 0), Tenant(tenant), priority, **more)


def picture_task(name: str, *sha256s: str, **more: Any) -> NewTask:
    pictures = tuple(ImagePart(sha256, 28, 28) for sha256 in sha256s)
    new = task(name, **more)
    asked = replace(new.request, messages=(Message(Role.USER, pictures),))
    return replace(new, request=asked)


def answer(lease: Lease, text: str = "42") -> Outcome:
    return Outcome(lease.task_id, lease.fence, text)


def held(lease: Lease) -> tuple[TaskId, Any]:
    return lease.task_id, lease.fence


def names(leases: list[Lease]) -> list[str]:
    return [lease.task_id for lease in leases]


async def run_out(redis: Redis, keys: Keys, *task_ids: str) -> None:
    """Let leases run out now, as time would."""
    for task_id in task_ids:
        await redis.zadd(keys.prefix + KEY_NAMES["leases"], {task_id: 1}, xx=True)
