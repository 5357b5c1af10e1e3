"""How much the engine takes on at once."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_KV_BYTES = 256 * 1024 * 1024
"""Most bytes of KV cache on a CPU where the number of tokens is not given."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Budgets of one engine. The memory it takes follows from these, not from the queue.

    Attributes:
        max_running: sequences that run at once.
        token_budget: decoder tokens of one step (decoding sequences first, then prefill).
        vision_budget: visual tokens that may be encoded at once; a larger picture goes alone.
        kv_tokens: tokens of KV cache; None: what the device's memory allows (on a CPU at most
            what ``DEFAULT_KV_BYTES`` holds), and no more than ``max_running`` sequences of the
            model's whole context.
        kv_block: tokens of one KV block.
        encoder_cache_bytes: bytes of picture embeddings that are kept.
        memory_share: share of the memory free at the start that the engine may take, 0 to 1.
        context_tokens: tokens that one request, prompt and answer, must be able to have (or the
            model's whole context, where that is less); the start fails when memory holds fewer.
        largest_image: visual tokens of the largest picture; the step's memory is measured with it.
    """

    max_running: int = 16
    token_budget: int = 2048
    vision_budget: int = 2048
    kv_tokens: int | None = None
    kv_block: int = 16
    encoder_cache_bytes: int = 64 * 1024 * 1024
    memory_share: float = 0.9
    context_tokens: int = 4096
    largest_image: int = 1369

    def __post_init__(self) -> None:
        """Raise ValueError for budgets under which a sequence could starve."""
        for name in ("max_running", "token_budget", "vision_budget", "kv_block", "context_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.memory_share <= 1:
            raise ValueError(f"memory_share must be over 0 and at most 1, got {self.memory_share}")
        if self.token_budget < self.max_running:
            raise ValueError(
                f"token_budget ({self.token_budget}) must be at least max_running "
                f"({self.max_running}): each running sequence takes one token a step"
            )
        if self.kv_tokens is not None and self.kv_tokens < self.kv_block:
            raise ValueError("kv_tokens must hold at least one block")
