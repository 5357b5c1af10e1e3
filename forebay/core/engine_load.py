"""What an engine has to do now, and what it has done: read by whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from forebay.core.events import StepStats


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """``running`` and ``waiting`` sequences of at most ``max_running``; KV blocks in use.

    None: this engine does not know. The others count since its start: tokens of prompts computed,
    spared by the prefix cache, and decoded; pictures encoded, and spared by the encoder cache.
    """

    running: int = 0
    waiting: int = 0
    max_running: int | None = None
    kv_blocks_used: int | None = None
    kv_blocks_total: int | None = None
    prefill_tokens: int = 0
    prefix_tokens: int = 0
    decode_tokens: int = 0
    images_encoded: int = 0
    images_reused: int = 0
    preempted: int = 0
    steps: int = 0

    @property
    def kv_use(self) -> float | None:
        """The share of the KV blocks in use."""
        if not self.kv_blocks_total or self.kv_blocks_used is None:
            return None
        return self.kv_blocks_used / self.kv_blocks_total

    def after(self, stats: StepStats) -> EngineLoad:
        """Return the load after one more step."""
        return replace(
            self,
            running=stats.running,
            waiting=stats.waiting,
            kv_blocks_used=stats.kv_blocks_used,
            kv_blocks_total=stats.kv_blocks_total,
            prefill_tokens=self.prefill_tokens + stats.prefill_tokens,
            prefix_tokens=self.prefix_tokens + stats.prefix_tokens,
            decode_tokens=self.decode_tokens + stats.decode_tokens,
            images_encoded=self.images_encoded + stats.images_encoded,
            images_reused=self.images_reused + stats.images_reused,
            preempted=self.preempted + stats.preempted,
            steps=self.steps + 1,
        )
