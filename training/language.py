"""The language loss: answers given the picture and the question."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from forebay.models.glm4v.model import Glm4vModel
from training import speed
from training.data import IGNORE, Batch
from training.pointing import Look


@dataclass(frozen=True, slots=True)
class RowAttention:
    """Causal attention inside each of ``rows`` equally long rows of a packed batch."""

    rows: int
    bias: Tensor
    look: Look | None = None
    losses: list[Tensor] = field(default_factory=list)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend; q [T, heads, width], k and v [T, kv heads, width]."""
        q, k, v = (t.view(self.rows, -1, *t.shape[1:]).transpose(1, 2) for t in (q, k, v))
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        if self.look is not None and (loss := self.look.loss(layer, q, k)) is not None:
            self.losses.append(loss)
        out = speed.attention(q, k, v, self.bias)
        return out.transpose(1, 2).reshape(-1, q.shape[1], q.shape[3])

    @classmethod
    def of(
        cls, rows: int, length: int, device: torch.device, look: Look | None = None
    ) -> RowAttention:
        """Build for ``rows`` rows of ``length`` tokens; ``look``: what to compare it with."""
        bias = torch.full((length, length), -1e4, device=device, dtype=torch.bfloat16).triu(1)
        return cls(rows, bias, look)


def answers(model: Glm4vModel, batch: Batch, visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of the answers, that of where they look, and which rows were right.

    Args:
        model: the model.
        batch: the rows.
        visual: visual tokens [R * tokens, hidden] of the rows' pictures in order.
    """
    rows = len(batch.ids)
    ids = batch.ids.flatten()
    embeds = model.embed(ids)
    places = (ids == model.config.image_token_id).nonzero().squeeze(1)
    embeds = embeds.index_copy(0, places, visual.to(embeds.dtype))
    attend = RowAttention.of(rows, batch.ids.shape[1], ids.device, batch.look)
    hidden = model.decode(embeds, batch.positions.flatten(1), attend)
    wanted = batch.targets.flatten()
    asked = wanted != IGNORE
    logits = model.logits(hidden[asked]).float()
    wrong = torch.zeros(rows, device=ids.device)
    row_of = asked.nonzero().squeeze(1) // batch.ids.shape[1]
    # A colour is one token and a price eight: between a mean over tokens, which would drown the
    # short answers, and one over rows, which would drown each glyph of the long ones.
    weights = torch.bincount(row_of, minlength=rows)[row_of].float().rsqrt()
    losses = F.cross_entropy(logits, wanted[asked], reduction="none")
    loss = (losses * weights).sum() / weights.sum()
    wrong.index_add_(0, row_of, (logits.detach().argmax(-1) != wanted[asked]).float())
    look_loss = sum(attend.losses, start=loss.new_zeros(()))
    return loss, look_loss, wrong == 0
