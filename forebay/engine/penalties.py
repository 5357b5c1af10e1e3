"""Penalties for tokens that were there before. Sparse: a text has few of the vocabulary."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from forebay.core.request import SamplingParams


class TokenCounts:
    """The distinct tokens of a text, and how often its answer has each.

    Those of the prompt are among them where repetition is penalised: the other two penalties look
    at the answer alone.
    """

    def __init__(self, params: SamplingParams, prompt: Iterable[int]) -> None:
        seen = dict.fromkeys(prompt) if params.repetition_penalty != 1 else {}
        self.params = params
        self._place = {token: place for place, token in enumerate(seen)}
        self._ids = array("q", seen)
        self._counts = array("q", bytes(self._ids.itemsize * len(self._ids)))

    def add(self, token: int) -> None:
        """Count a token of the answer."""
        place = self._place.setdefault(token, len(self._ids))
        if place == len(self._ids):
            self._ids.append(token)
            self._counts.append(0)
        self._counts[place] += 1

    def __len__(self) -> int:
        return len(self._ids)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and counts, each [distinct tokens]."""
        return np.array(self._ids), np.array(self._counts)


def is_penalised(params: SamplingParams) -> bool:
    """Whether any of the three penalties does something."""
    return (
        params.repetition_penalty != 1
        or params.presence_penalty != 0
        or params.frequency_penalty != 0
    )


def penalise(logits: Tensor, rows: Sequence[tuple[int, TokenCounts]]) -> None:
    """Lower the logits [rows, vocabulary], in place, of the tokens that the texts of ``rows`` have.

    Source of the formulas: the CTRL paper (arXiv:1909.05858) for repetition, OpenAI's
    documentation for presence and frequency.
    """
    if not rows:
        return
    parts = [(row, counts.params, *counts.arrays()) for row, counts in rows]

    def spread(values: list[float] | list[int]) -> Tensor:
        column = np.repeat(values, [len(ids) for _, _, ids, _ in parts])
        return torch.from_numpy(column).to(logits.device)

    at = spread([row for row, *_ in parts])
    ids = torch.from_numpy(np.concatenate([ids for _, _, ids, _ in parts])).to(logits.device)
    counts = torch.from_numpy(np.concatenate([found for *_, found in parts])).to(logits.device)
    repetition = spread([params.repetition_penalty for _, params, _, _ in parts]).float()
    frequency = spread([params.frequency_penalty for _, params, _, _ in parts]).float()
    presence = spread([params.presence_penalty for _, params, _, _ in parts]).float()
    values = logits[at, ids]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[at, ids] = values - frequency * counts - presence * (counts > 0)
