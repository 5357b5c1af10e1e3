"""What others may ask of the webhooks that wait in the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from forebay.core.request import TaskId
from forebay.queue.ports import TaskRecord


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """What became of one attempt to tell a receiver of a task's end.

    ``outcome``: "delivered", or a word for what went wrong; ``status``: of the receiver's answer,
    if there was one. ``took_s``: the attempt's length; ``again_s``: seconds from its end to the
    next one, None where it was the last. ``attempt`` counts from 1; ``at_s``: its end, by the
    queue's clock. These two are the queue's to say.
    """

    outcome: str
    status: int | None = None
    took_s: float = 0.0
    again_s: float | None = None
    attempt: int = 0
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WebhookLease:
    """A webhook in a dispatcher's hands until the lease runs out.

    ``task``: as it ended. ``host``: the receiver, by which attempts at once are bounded.
    ``attempt`` counts from 1, and also those that nothing is known of.
    """

    task: TaskRecord
    url: str
    host: str
    attempt: int
    nonce: str


@dataclass(frozen=True, slots=True)
class WebhookClaim:
    """Webhooks leased by a claim; how many wait in all, and how many are due but not leased.

    ``crowded_out``: given up because too many waited, since the queue was made.
    """

    leases: Sequence[WebhookLease]
    waiting: int
    due: int
    crowded_out: int = 0


class Webhooks(Protocol):
    """A dispatcher's side of the webhooks that wait in the queue."""

    async def claim(self, limit: int, per_host: int, busy: Mapping[str, int]) -> WebhookClaim:
        """Lease up to ``limit`` webhooks that are due, those of the longest due receivers first.

        Of one receiver at most ``per_host`` less what ``busy`` says that the caller has in hand.
        """
        ...

    async def settle(
        self, lease: WebhookLease, attempt: WebhookAttempt, again_s: float | None
    ) -> bool:
        """Log an attempt; the next follows in ``again_s``, or none where that is None.

        Returns False, and changes nothing, when the lease has run out and another has it.
        """
        ...


class WebhookLog(Protocol):
    """What became of a task's webhook."""

    async def webhook_log(self, task_id: TaskId) -> list[WebhookAttempt]:
        """Return the attempts so far, the oldest first; kept as long as the task's result."""
        ...
