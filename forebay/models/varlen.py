"""Attention inside each of many sequences that lie packed one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

SCORES_AT_ONCE = 2**24
"""Scores that plain causal attention holds at once, 64 MiB in single precision. A context grows
after memory was measured; what attending to it takes must not."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the sequences of a packed batch begin and end.

    ``host``: the first row of each sequence and, last, the number of rows; ``device``: the same,
    int32 [sequences + 1], on the device.
    """

    host: tuple[int, ...]
    device: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Bounds:
        """Bounds of sequences of these lengths."""
        host = bounds(lengths)
        return cls(host, torch.tensor(host, dtype=torch.int32).to(device))

    @property
    def longest(self) -> int:
        """Rows of the longest sequence."""
        return max(end - start for start, end in pairwise(self.host))


def bounds(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the first row of each sequence and, last, the number of rows."""
    at = [0]
    for length in lengths:
        at.append(at[-1] + length)
    return tuple(at)


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, rows: Bounds, context: Bounds, *, causal: bool
) -> Tensor:
    """Attend from each sequence's queries to its own keys.

    Args:
        q: [T, heads, width].
        k: [C, kv heads, width].
        v: likewise.
        rows: bounds of ``q``.
        context: bounds of ``k`` and ``v``; where they hold more tokens than ``rows``, the queries
            are the last ones.
        causal: whether a query sees no later keys.

    Returns:
        [T, heads, width].
    """
    if has_flash(q):
        return _flash(q, k, v, rows, context, causal=causal)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for (first, last), (begin, end) in zip(
        pairwise(rows.host), pairwise(context.host), strict=True
    ):
        _plain(q[first:last], k[begin:end], v[begin:end], out[first:last], causal=causal)
    return out


def has_flash(q: Tensor) -> bool:
    """Whether torch's FlashAttention kernels take such queries [T, heads, width]."""
    width = q.shape[-1]
    fits = q.dtype in (torch.bfloat16, torch.float16) and width % 8 == 0 and width <= 256
    return q.is_cuda and fits and _capability(q.device) >= (8, 0)


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _flash(
    q: Tensor, k: Tensor, v: Tensor, rows: Bounds, context: Bounds, *, causal: bool
) -> Tensor:
    """All sequences in one kernel.

    This is what ``torch.nn.attention.varlen`` calls; that module's own arguments differ from
    torch 2.11 to 2.13, these do not. A causal query sees keys up to its place from the end.
    """
    forward = torch.ops.aten._flash_attention_forward  # noqa: SLF001 (see above)
    sizes = (rows.device, context.device, rows.longest, context.longest)
    dropout, with_debug_mask = 0.0, False
    out: Tensor = forward(q, k, v, *sizes, dropout, causal, with_debug_mask)[0]
    return out


def _plain(q: Tensor, k: Tensor, v: Tensor, out: Tensor, *, causal: bool) -> None:
    """One sequence's attention, [tokens, heads, width], written to ``out``.

    Where torch has no fused kernel for the causal mask, it holds all scores at once: so only as
    many queries go together as :data:`SCORES_AT_ONCE` allows, and see no later keys.
    """
    tokens, length = len(q), len(k)
    if not causal:
        out.copy_(_one(q, k, v, causal=False))
        return
    rows = max(1, SCORES_AT_ONCE // (q.shape[1] * length))
    for first in range(0, tokens, rows):
        last = min(first + rows, tokens)
        seen = length - tokens + last
        out[first:last] = _one(q[first:last], k[:seen], v[:seen], causal=True)


def _one(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """One sequence's attention, [tokens, heads, width]."""
    tokens, length = len(q), len(k)
    mask = None
    if causal and 1 < tokens < length:
        mask = torch.ones(tokens, length, dtype=torch.bool, device=q.device).tril(length - tokens)
    q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal and 1 < tokens == length, enable_gqa=True
    )
    return out.squeeze(0).transpose(0, 1)
