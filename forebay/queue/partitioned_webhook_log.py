"""The log of a task's webhook, in the partition that its id names."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.core.request import TaskId
from forebay.queue.partitions import partition_in
from forebay.queue.webhook_ports import WebhookAttempt, WebhookLog


class PartitionedWebhookLog:
    """WebhookLog over several of them."""

    def __init__(self, partitions: Sequence[WebhookLog]) -> None:
        self._partitions = tuple(partitions)

    async def webhook_log(self, task_id: TaskId) -> list[WebhookAttempt]:
        """Return the attempts so far; none for an id that no partition gave."""
        home = partition_in(task_id, len(self._partitions))
        return [] if home is None else await self._partitions[home].webhook_log(task_id)
