"""Counts the layers that a model has run, so that a slow step can be told from one that hangs."""

from __future__ import annotations

from torch import nn

from forebay.models.glm4v.model import Glm4vModel


class LayerPulse:
    """Counts the layers of decoder and vision tower; a step has dozens of them.

    ``count`` is written by the threads that run layers: two at once may count as one, which is
    enough to see that something moves.
    """

    def __init__(self, model: Glm4vModel) -> None:
        self.count = 0
        for layer in (*model.model.language_model.layers, *model.visual.blocks):
            layer.register_forward_hook(self._beat)

    def _beat(self, layer: nn.Module, inputs: object, output: object) -> None:
        del layer, inputs, output
        self.count += 1
