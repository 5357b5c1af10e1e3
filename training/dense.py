"""Throw-away heads on the visual tokens: they name what every patch shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.labels import CELLS, MAX_COUNT, PATCHES
from training.lists import COLOUR_NAMES, GLYPHS, LINE_KINDS, MAX_ORDER, REASON_NAMES, SHAPE_NAMES

_PER_CELL = {"kind": len(LINE_KINDS), "glyph": len(GLYPHS), "order": MAX_ORDER}
_PER_PATCH = {
    "shape": len(SHAPE_NAMES) + 1,
    "colour": len(COLOUR_NAMES),
    "centre": len(SHAPE_NAMES) + 1,
}
WEIGHTS = {
    "kind": 1.0, "glyph": 1.0, "order": 0.7, "shape": 1.0, "colour": 0.5, "centre": 2.0,
    "kind0": 0.5, "glyph0": 0.7, "order0": 0.3, "counts": 0.5, "reason": 0.5,
}  # fmt: skip


class DenseHeads(nn.Module):
    """Linear heads on a token for its cells and patches, and on the picture's mean token."""

    def __init__(self, width: int, patch_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cells = nn.ModuleDict({k: nn.Linear(width, CELLS * n) for k, n in _PER_CELL.items()})
        self.patches = nn.ModuleDict(
            {k: nn.Linear(width, PATCHES * n) for k, n in _PER_PATCH.items()}
        )
        self.early = nn.ModuleDict({k: nn.Linear(2 * patch_width, n) for k, n in _PER_CELL.items()})
        self.pool = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.counts = nn.Linear(width, len(SHAPE_NAMES) * (MAX_COUNT + 1))
        self.reason = nn.Linear(width, len(REASON_NAMES))

    def forward(
        self, visual: Tensor, patches: Tensor, labels: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return loss and accuracy of each kind of label.

        Args:
            visual: [P, tokens, width].
            patches: [P * tokens * 4, patch width], what the tower knows before the merger.
            labels: the fields of :class:`training.labels.Labels`, stacked.
        """
        x = self.norm(visual)
        # a cell is one patch wide and two patches high; a token holds 4 x 4 patches
        width = patches.shape[-1]
        under = patches.view(-1, 2, 2, 4, width).transpose(2, 3).reshape(-1, 2 * width)
        found = {}
        on_text = labels["glyph"].flatten() >= 0
        for name, head in self.cells.items():
            wanted = labels[name].flatten()
            logits = head(x).view(wanted.numel(), -1)
            if name != "kind":
                logits, wanted = logits[on_text], wanted[on_text]
            found[name] = _score(logits, wanted)
            logits = self.early[name](under).view(labels[name].numel(), -1)
            found[f"{name}0"] = _score(logits if name == "kind" else logits[on_text], wanted)
        on_shape = labels["colour"].flatten() >= 0
        for name, head in self.patches.items():
            wanted = labels[name].flatten()
            logits = head(x).view(wanted.numel(), -1)
            if name == "colour":
                logits, wanted = logits[on_shape], wanted[on_shape]
            found[name] = _score(logits, wanted)
        pooled = self.pool(x).mean(1)
        counts = labels["counts"].flatten()
        found["counts"] = _score(
            self.counts(pooled).view(counts.numel(), -1)[counts >= 0], counts[counts >= 0]
        )
        known = labels["reason"] >= 0
        found["reason"] = _score(self.reason(pooled)[known], labels["reason"][known])
        return found


def _score(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    if not wanted.numel():
        zero = logits.sum() * 0.0
        return zero, torch.tensor(float("nan"))
    loss = F.cross_entropy(logits.float(), wanted)
    return loss, (logits.detach().argmax(-1) == wanted).float().mean()


def total(found: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Return the weighted sum of the losses."""
    return torch.stack([WEIGHTS[name] * loss for name, (loss, _) in found.items()]).sum()
