"""From logits to tokens. A sequence's choice depends on its own logits, seed and length alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from forebay.core.request import SamplingParams


def sample(logits: Tensor, choices: Sequence[tuple[SamplingParams, int, int]]) -> list[int]:
    """Choose one token a row.

    Args:
        logits: [rows, vocabulary].
        choices: for each row its parameters, its seed, and how many tokens it has generated. The
            same seed gives the same answer whatever else is in the batch, and after preemption.

    Returns:
        Token ids, one a row.
    """
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    drawn = [row for row, (params, _, _) in enumerate(choices) if params.temperature > 0]
    if drawn:
        for row, token in zip(
            drawn, _draw(logits[drawn], [choices[r] for r in drawn]), strict=True
        ):
            tokens[row] = token
    return tokens


def _draw(logits: Tensor, choices: Sequence[tuple[SamplingParams, int, int]]) -> list[int]:
    """Draw from the nucleus of each row, by the inverse of its cumulative distribution."""
    device = logits.device
    heat = torch.tensor([p.temperature for p, _, _ in choices], device=device).unsqueeze(1)
    mass = torch.tensor(
        [p.top_p for p, _, _ in choices], device=device, dtype=torch.float64
    ).unsqueeze(1)
    ordered, order = (logits.float() / heat).sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.double().softmax(dim=-1).cumsum(dim=-1)
    # the nucleus: the fewest likeliest tokens that hold top_p of the mass; always one at least
    last = (cumulative < mass).sum(dim=-1, keepdim=True).clamp_(max=logits.shape[-1] - 1)
    points = torch.tensor(
        [_uniform(seed, at) for _, seed, at in choices], device=device, dtype=torch.float64
    ).unsqueeze(1)
    target = points * cumulative.gather(1, last)
    chosen = torch.searchsorted(cumulative, target, right=True).minimum(last)
    drawn: list[int] = order.gather(1, chosen).squeeze(1).tolist()
    return drawn


def _uniform(seed: int, at: int) -> float:
    """Return the number in [0, 1) that belongs to token ``at`` of an answer with ``seed``."""
    return random.Random(f"{seed}:{at}").random()  # noqa: S311 (sampling, not secrecy)
