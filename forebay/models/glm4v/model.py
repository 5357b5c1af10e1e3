"""The whole model: pictures and tokens in, logits out."""

from __future__ import annotations

from torch import Tensor, nn

from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.layers import GatedMLP, Linear
from forebay.models.glm4v.text import Attend, Decoder, TextAttention
from forebay.models.glm4v.vision import PatchEmbed, VisionTower


class _Backbone(nn.Module):
    """Holds the two towers under the names of the checkpoint."""

    def __init__(self, config: Glm4vConfig) -> None:
        super().__init__()
        self.visual = VisionTower(config.vision)
        self.language_model = Decoder(config.text)


class Glm4vModel(nn.Module):
    """Vision tower, projector, decoder and head; ``state_dict`` names are the checkpoint's.

    They are until :meth:`join`, which a model that is only to answer goes through.

    ``narrow``: attention over many tokens is to be done in bfloat16. Set with INT8 weights on a CPU
    that multiplies bfloat16: single precision would take longer there than all INT8 products.
    """

    def __init__(self, config: Glm4vConfig) -> None:
        super().__init__()
        self.config = config
        self.narrow = False
        self.model = _Backbone(config)
        self.lm_head = Linear(config.text.hidden_size, config.text.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.language_model.embed_tokens.weight

    def join(self) -> None:
        """Make matrices that multiply one input one matrix, throughout. There is no way back."""
        for module in list(self.modules()):
            if isinstance(module, TextAttention | GatedMLP | PatchEmbed):
                module.join()

    @property
    def visual(self) -> VisionTower:
        """The vision tower: ``visual(patches, grids) -> visual tokens``."""
        return self.model.visual

    @property
    def token_work(self) -> int:
        """Multiply-adds of one token in the matrices of the decoder's layers."""
        layers = self.model.language_model.layers
        return sum(tensor.numel() for tensor in layers.state_dict().values())

    def embed(self, token_ids: Tensor) -> Tensor:
        """Return the embeddings [T, hidden] of token ids [T]."""
        out: Tensor = self.model.language_model.embed_tokens(token_ids)
        return out

    def decode(self, embeds: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run the decoder; see :meth:`forebay.models.glm4v.text.Decoder.forward`."""
        out: Tensor = self.model.language_model(embeds, positions, attend)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the vocabulary logits [T, vocab] of hidden states [T, hidden]."""
        out: Tensor = self.lm_head(hidden)
        return out
