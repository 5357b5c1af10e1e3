"""The keys and values of every running sequence, in blocks, allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from forebay.models.glm4v.config import TextConfig


class KVCache:
    """Two tensors [layers, blocks, block, kv heads, head width], for the engine's whole life.

    They have one block more than asked for: ``scratch``, which no sequence owns. Rows that only
    fill a batch up write there.
    """

    def __init__(
        self,
        config: TextConfig,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_size = block_size
        self.scratch = blocks
        shape = (
            config.num_hidden_layers,
            blocks + 1,
            block_size,
            config.num_key_value_heads,
            config.head_dim,
        )
        # zeros, not empty; see :meth:`clear`
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def bytes(self) -> int:
        """Bytes that both tensors take."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store ``keys`` and ``values`` [T, kv heads, width] at ``slots`` [T] (block, offset)."""
        self.keys[layer].flatten(0, 1).index_copy_(0, slots, keys)
        self.values[layer].flatten(0, 1).index_copy_(0, slots, values)

    def clear(self, slots: Tensor) -> None:
        """Make ``slots`` [T] zero in every layer.

        Whole blocks are read. What is masked in them is multiplied by zero, and zero times NaN,
        which an earlier holder may have left, is NaN.
        """
        for stored in (self.keys, self.values):
            stored.flatten(1, 2).index_fill_(1, slots, 0)

    def read(self, layer: int, blocks: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values [rows, kv heads, length, width] of block tables, flattened."""
        keys = self.keys[layer].index_select(0, blocks)
        values = self.values[layer].index_select(0, blocks)
        heads, width = keys.shape[-2:]
        return (
            keys.view(rows, -1, heads, width).transpose(1, 2),
            values.view(rows, -1, heads, width).transpose(1, 2),
        )


def bytes_per_token(config: TextConfig, dtype: torch.dtype) -> int:
    """Return the bytes of KV cache that one token takes."""
    width = config.num_key_value_heads * config.head_dim
    return 2 * config.num_hidden_layers * width * dtype.itemsize
