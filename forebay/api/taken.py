"""A request that has become a task whose answer is waited for."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from forebay.api.preferences import task_headers
from forebay.api.services import Services
from forebay.api.waiting import answered
from forebay.queue.ports import Enqueued, TaskRecord


@dataclass(frozen=True, slots=True)
class Taken:
    """``lasting``: the client may come back for it, by its idempotency key."""

    enqueued: Enqueued
    lasting: bool

    @property
    def headers(self) -> dict[str, str]:
        """What lets a client go over to the tasks API, or see that it was not asked twice."""
        return task_headers(self.enqueued)

    async def answer(self, request: Request, services: Services) -> TaskRecord | None:
        """Wait for the answer; None where the client has hung up. Raises as ``answered``."""
        return await answered(request, services, self.enqueued.task_id, lasting=self.lasting)
