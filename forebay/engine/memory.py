"""How much of a device's memory the KV cache may take. Arithmetic only; see ``memory_profile``."""

from __future__ import annotations

from dataclasses import dataclass


class EngineMemoryError(Exception):
    """The engine does not fit the device; the message names the settings to change."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What was measured, in bytes.

    Attributes:
        free: what the process could take before it loaded the model.
        weights: what loading the model took of it.
        activations: the most that a step took beside weights and KV cache, captured graphs and
            library workspaces included.
        pictures: the most that picture embeddings may take, waiting to be read or kept for later.
    """

    free: int
    weights: int
    activations: int
    pictures: int


@dataclass(frozen=True, slots=True)
class KVNeed:
    """What the KV cache is made of, and how much of it makes sense.

    Attributes:
        block: tokens of one block.
        block_bytes: bytes of one block over all layers.
        layers: layers of the decoder; a chunk of prefill gathers one layer's context at a time.
        least_tokens: tokens that one request must be able to have.
        most_tokens: tokens beyond which no request could use it.
    """

    block: int
    block_bytes: int
    layers: int
    least_tokens: int
    most_tokens: int

    @property
    def block_cost(self) -> int:
        """Bytes that a block takes with its share of the gathered copy."""
        return self.block_bytes + -(-self.block_bytes // self.layers)


@dataclass(frozen=True, slots=True)
class MemorySplit:
    """Who gets which bytes of what was free at the start; the parts add up to ``total``."""

    total: int
    weights: int
    activations: int
    pictures: int
    kv: int
    reserve: int
    kv_tokens: int

    def __str__(self) -> str:
        names = ("weights", "activations", "pictures", "kv", "reserve")
        parts = ", ".join(f"{name} {_size(getattr(self, name))}" for name in names)
        return f"{_size(self.total)}: {parts}; {self.kv_tokens} tokens of KV cache"


def split_memory(use: MemoryUse, need: KVNeed, share: float) -> MemorySplit:
    """Give the KV cache what is left of ``share`` of the free memory.

    Raises:
        EngineMemoryError: one longest request would not fit.
    """
    budget = int(use.free * share)
    left = budget - use.weights - use.activations - use.pictures
    blocks = max(0, left) // need.block_cost
    least = -(-need.least_tokens // need.block)
    if blocks < least:
        raise EngineMemoryError(_too_small(use, need, share, least * need.block_cost - left))
    blocks = min(blocks, -(-max(need.most_tokens, need.least_tokens) // need.block))
    kv = blocks * need.block_bytes
    gathered = blocks * (need.block_cost - need.block_bytes)
    activations = use.activations + gathered
    reserve = use.free - use.weights - activations - use.pictures - kv
    return MemorySplit(
        use.free, use.weights, activations, use.pictures, kv, reserve, blocks * need.block
    )


def _too_small(use: MemoryUse, need: KVNeed, share: float, lacking: int) -> str:
    return (
        f"the device has {_size(use.free)} free, of which memory_share = {share} may be used. "
        f"Weights take {_size(use.weights)}, a step {_size(use.activations)}, pictures "
        f"{_size(use.pictures)}; for one request of {need.least_tokens} tokens {_size(lacking)} "
        "are lacking. Make context_tokens, token_budget, max_running or image_side smaller, "
        "memory_share larger, take a quantized or smaller model, or end what else uses the device"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if abs(count) >= 2**30 else f"{count / 2**20:.1f} MiB"
