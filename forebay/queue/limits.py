"""What the queue may hold, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.queue.schema import DEAD_TTL_S, STREAM_TTL_S


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Caps and times of one queue. Every process of a queue should be given the same ones.

    ``max_waiting`` tasks and ``max_waiting_tokens`` (visual, text and output tokens together) may
    wait; past either, ``enqueue`` refuses and names ``retry_after_s``. A lease runs ``lease_s``
    without a heartbeat; a task is delivered at most ``max_deliveries`` times. Results are kept
    for ``result_ttl_s``.
    """

    max_waiting: int = 10_000
    max_waiting_tokens: int = 50_000_000
    lease_s: float = 15.0
    result_ttl_s: float = 3600.0
    max_deliveries: int = 3
    retry_after_s: float = 5.0

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run. Raises ValueError."""
        for name in ("max_waiting", "max_waiting_tokens", "max_deliveries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("lease_s", "result_ttl_s"):
            if getattr(self, name) < 0.01:
                raise ValueError(f"{name} must be at least 0.01")

    def script_args(self) -> tuple[int, int, int, int, int]:
        """Return the arguments that every function of the Lua library begins with."""
        return (
            round(self.lease_s * 1000),
            self.max_deliveries,
            round(self.result_ttl_s * 1000),
            DEAD_TTL_S * 1000,
            STREAM_TTL_S * 1000,
        )
