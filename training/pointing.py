"""Where a decoder head should look to find an answer: labels for the attention of two heads.

Which glyph comes next, which shape is meant, how many there are: all of it is in the visual tokens
long before the decoder finds out to whom it must listen. Telling it shortens that search a lot.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from training.labels import Labels
from training.lists import LINE_KINDS, MAX_ORDER, SHAPE_NAMES, SHAPES
from training.scene import Turn

READING, SEEING = 1, 2  # layers of the decoder's four: what is asked for, and where it is seen
POINTING_HEAD, COUNTING_HEAD = 0, 4  # each of its own pair of keys and values
_SINK = 3.0
"""What a count is weighed against: n shapes get n / (n + 3) of the attention, so that the number
can be read from its strength, which a plain mean over the shapes would lose."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """At ``query`` of the row, so much of a head's attention belongs on these positions."""

    query: int
    keys: npt.NDArray[np.int64]
    share: float = 1.0
    layer: int = SEEING


@dataclass(frozen=True, slots=True)
class Look:
    """The pointers of a batch. ``keys``: [K, S], where each may look; the rest are [K]."""

    rows: Tensor
    queries: Tensor
    keys: Tensor
    shares: Tensor
    layers: Tensor

    def to(self, device: torch.device) -> Look:
        """Move the tensors."""
        return Look(*(getattr(self, f.name).to(device) for f in fields(self)))

    def loss(self, layer: int, q: Tensor, k: Tensor) -> Tensor | None:
        """Return how far the heads' attention is from what they should look at.

        For a share of one that is the cross-entropy; for less the difference of the log-odds, in
        which one shape more always counts, where the cross-entropy would hardly notice it.

        Args:
            layer: which one; None is returned for one without pointers.
            q: queries [rows, heads, S, width] of the layer.
            k: keys of the same shape.
        """
        here = (self.layers == layer).nonzero().squeeze(1)
        if not len(here):
            return None
        rows, queries, shares = self.rows[here], self.queries[here], self.shares[here]
        with torch.autocast(q.device.type, enabled=False):  # bfloat16 rounds a sure hit to one
            heads = torch.where(shares < 1, COUNTING_HEAD, POINTING_HEAD)
            asked, seen = q[rows, heads, queries].float(), k[rows, heads].float()
            scores = torch.einsum("kd,ksd->ks", asked, seen) * asked.shape[-1] ** -0.5
            later = torch.arange(k.shape[2], device=k.device) > queries[:, None]
            scores = scores.masked_fill(later, -1e4).log_softmax(-1)
            hit = scores.masked_fill(~self.keys[here], -1e4).logsumexp(-1).clamp(max=-1e-4)
            odds = hit - torch.log1p(-hit.exp())
            off = F.smooth_l1_loss(odds, shares.clamp(max=0.99).logit(), reduction="none")
            # two means: counts are few beside glyphs, and each must be exact
            return _mean(off, shares < 1) + _mean(-hit, shares == 1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)


def pointers(turn: Turn, labels: Labels, spot: Spot) -> list[Pointer]:
    """Return what an answer's first tokens should look at."""
    found = [
        Pointer(spot.answer + at, spot.picture + tokens.nonzero()[0], share)
        for at, tokens, share in _seen(turn, labels)
    ]
    if turn.skill in ("colour", "count"):
        found += [Pointer(spot.answer + at, spot.word, layer=READING) for at in (0, 1)]
    return [one for one in found if one.keys.size]


@dataclass(frozen=True, slots=True)
class Spot:
    """Positions in a row: what predicts the answer, the first visual token, the shape's name."""

    answer: int
    picture: int
    word: npt.NDArray[np.int64]


def _seen(turn: Turn, labels: Labels) -> list[tuple[int, npt.NDArray[np.bool_], float]]:
    """Return (token of the answer, visual tokens that hold it, share of the attention)."""
    if turn.skill in ("price", "label"):
        mine = np.asarray(labels.kind == LINE_KINDS.index(turn.skill))
        glyphs = range(min(len(turn.answer), MAX_ORDER - 1))
        return [(at, np.asarray((mine & (labels.order == at)).any(1)), 1.0) for at in glyphs]
    names = SHAPE_NAMES if turn.about is None else (turn.about,)
    codes = [SHAPE_NAMES.index(name) + 1 for name in names]
    if turn.skill == "colour":
        there = np.asarray(np.isin(labels.shape, codes).any(1))
        return [(at, there, 1.0) for at in (0, 1)]  # colours are spelled, and some begin alike
    if turn.skill == "count":
        centres = np.isin(labels.centre, codes)
        count = int(centres.sum())
        return [(0, np.asarray(centres.any(1)), count / (count + _SINK))]
    return []


def word_of(turn: Turn) -> tuple[int, int]:
    """Return where in a question the name of the shape stands, (0, 0) where there is none."""
    names = SHAPES[turn.about] if turn.about else ("shapes", "图形")
    text = turn.question.lower()
    found = [(text.index(name), len(name)) for name in names if name in text]
    start, length = max(found, key=lambda one: one[1], default=(0, 0))
    return start, start + length


def collate(found: list[tuple[int, Pointer]], length: int) -> Look:
    """Stack pointers, each with its row; rows have ``length`` positions."""
    keys = np.zeros((len(found), length), dtype=np.bool_)
    for at, (_, one) in enumerate(found):
        keys[at, one.keys] = True
    return Look(
        torch.tensor([row for row, _ in found], dtype=torch.long),
        torch.tensor([one.query for _, one in found], dtype=torch.long),
        torch.from_numpy(keys),
        torch.tensor([one.share for _, one in found], dtype=torch.float),
        torch.tensor([one.layer for _, one in found], dtype=torch.long),
    )
