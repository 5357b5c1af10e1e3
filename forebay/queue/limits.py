"""What the queue may hold, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.queue.schema import BLOB_TTL_S, DEAD_TTL_S, STREAM_TTL_S


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Caps and times of one queue. Every process of a queue should be given the same ones.

    ``max_waiting`` tasks and ``max_waiting_tokens`` (visual, text and output tokens together) may
    wait; past either, ``enqueue`` refuses. A refusal says when to come again from measured rates;
    while nothing has been measured, after ``retry_after_s``.

    The ``tenant_...`` ones are for each tenant whose tasks bring no quota of their own; None: no
    bound. ``tenant_rate_per_s``: tasks a second in the long run, ``tenant_burst`` of them at once.

    ``starvation_share``: share of the tokens given out that less urgent levels get while more
    urgent ones wait; 0: none.

    A lease runs ``lease_s`` without a heartbeat; a task is delivered at most ``max_deliveries``
    times. Results are kept for ``result_ttl_s``, answers that equal requests may have for
    ``answer_cache_s`` (0: equal tasks still share one run while it lasts). The texts of a task's
    answers have at most ``max_answer_bytes`` together. Pictures are kept for ``blob_ttl_s`` after
    the last task that needs them.
    """

    max_waiting: int = 10_000
    max_waiting_tokens: int = 50_000_000
    lease_s: float = 15.0
    result_ttl_s: float = 3600.0
    max_deliveries: int = 3
    retry_after_s: float = 5.0
    tenant_max_waiting: int | None = None
    tenant_max_waiting_tokens: int | None = None
    tenant_rate_per_s: float | None = None
    tenant_burst: int = 1
    starvation_share: float = 0.1
    answer_cache_s: float = 300.0
    max_answer_bytes: int = 2**20
    blob_ttl_s: float = BLOB_TTL_S

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run. Raises ValueError."""
        for name in ("max_waiting", "max_waiting_tokens", "max_deliveries", "tenant_burst"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.answer_cache_s < 0 or self.max_answer_bytes < 1:
            raise ValueError("answer_cache_s must be at least 0, max_answer_bytes at least 1")
        for name in ("lease_s", "result_ttl_s", "blob_ttl_s"):
            if getattr(self, name) < 0.01:
                raise ValueError(f"{name} must be at least 0.01")
        if not 0 <= self.starvation_share <= 1:
            raise ValueError("starvation_share must be from 0 to 1")

    def script_args(self) -> tuple[int, ...]:
        """Return the arguments that every function of the Lua library begins with."""
        return (
            round(self.lease_s * 1000),
            self.max_deliveries,
            round(self.result_ttl_s * 1000),
            DEAD_TTL_S * 1000,
            STREAM_TTL_S * 1000,
            round(self.answer_cache_s * 1000),
            round(self.blob_ttl_s * 1000),
        )
