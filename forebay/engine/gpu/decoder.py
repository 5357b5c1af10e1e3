"""The decoder's layers over fused operations: a dozen launches a layer instead of forty.

The weights are those of ``forebay.models.glm4v.text``; the sums are the same.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from forebay.engine.gpu.ops import Ops
from forebay.models.glm4v.config import TextConfig
from forebay.models.glm4v.text import Decoder, DecoderLayer, TextAttention


class StoredAttention(Protocol):
    """Causal attention where keys and values are in the cache already."""

    def store(self, layer: int, qkv: Tensor, angles: tuple[Tensor, Tensor]) -> None:
        """Rotate ``qkv`` [T, heads + 2 kv heads, width] in place; store its keys and values."""
        ...

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Return [T, heads, width] of what :meth:`store` was given."""
        ...


class FusedDecoder:
    """A :class:`Decoder` run through :class:`Ops`. It shares the decoder's weights."""

    def __init__(self, decoder: Decoder, ops: Ops) -> None:
        self._decoder = decoder
        self._ops = ops
        device = decoder.embed_tokens.weight.device
        self._inverse, self._axis = _frequencies(decoder.config, device)
        self._qkv = [_joined(layer.self_attn) for layer in self._layers()]

    def __call__(self, embeds: Tensor, positions: Tensor, attention: StoredAttention) -> Tensor:
        """Run the layers over packed tokens.

        Args:
            embeds: [T, hidden]; overwritten.
            positions: [3, T], any integer type.
            attention: over the caller's cache.

        Returns:
            Hidden states [T, hidden] after the last norm.
        """
        layers = self._layers()
        angles = positions.float()[self._axis].t().contiguous() * self._inverse
        turns = (angles.cos(), angles.sin())
        first = layers[0].input_layernorm
        x, normed = embeds, self._ops.norm(embeds, first.weight, first.eps)
        following = [layer.input_layernorm for layer in layers[1:]] + [self._decoder.norm]
        for at, (layer, after) in enumerate(zip(layers, following, strict=True)):
            mixed = self._mix(layer.self_attn, at, normed, turns, attention)
            norm, closing = layer.post_self_attn_layernorm, layer.post_attention_layernorm
            normed = self._ops.add_norm(x, mixed, norm.weight, closing.weight, norm.eps)
            gate_up = self.product(layer.mlp.gate_up_proj, normed)
            fed = self.product(layer.mlp.down_proj, self._ops.gated(gate_up))
            norm = layer.post_mlp_layernorm
            normed = self._ops.add_norm(x, fed, norm.weight, after.weight, norm.eps)
        return normed

    def _mix(
        self,
        part: TextAttention,
        layer: int,
        normed: Tensor,
        turns: tuple[Tensor, Tensor],
        attention: StoredAttention,
    ) -> Tensor:
        qkv = self.product(self._qkv[layer], normed).view(len(normed), -1, part.head_dim)
        attention.store(layer, qkv, turns)
        return self.product(part.o_proj, attention.attend(layer, qkv).flatten(1))

    def product(self, part: nn.Module, x: Tensor) -> Tensor:
        """Run a linear layer; a quantized one has its own way."""
        if isinstance(part, nn.Linear):
            return self._ops.product(x, part.weight, part.bias)
        out: Tensor = part(x)
        return out

    @property
    def matrices(self) -> list[Tensor]:
        """The weights of every plain product of a step."""
        found = plain_weights(*self._qkv)
        for layer in self._layers():
            found += plain_weights(
                layer.self_attn.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj
            )
        return found

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self._decoder.layers if isinstance(layer, DecoderLayer)]


def _frequencies(config: TextConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each pair's angle a position, and the axis whose position it turns by, [pairs]."""
    dim = config.rotary_dim
    exponents = torch.arange(0, dim, 2, dtype=torch.float, device=device) / dim
    sections = [torch.full((size,), at % 3) for at, size in enumerate(config.mrope_section)]
    return 1.0 / config.rope_theta**exponents, torch.cat(sections).to(device)


def plain_weights(*parts: nn.Module) -> list[Tensor]:
    """Return the weights of those parts that are plain linear layers, not quantized."""
    return [part.weight for part in parts if isinstance(part, nn.Linear)]


def _joined(part: TextAttention) -> nn.Module:
    """Return the three projections of the input as one layer.

    Where the loader has not joined them, their weights are laid end to end here, and the
    projections keep their names and become views.
    """
    ready: nn.Module | None = getattr(part, "qkv_proj", None)
    if ready is not None:
        return ready
    members = (part.q_proj, part.k_proj, part.v_proj)
    rows = [one.out_features for one in members]
    whole = nn.Linear(part.q_proj.in_features, sum(rows), device="meta")
    whole.weight = nn.Parameter(torch.cat([one.weight for one in members]), requires_grad=False)
    whole.bias = nn.Parameter(torch.cat([one.bias for one in members]), requires_grad=False)
    views = zip(torch.split(whole.weight, rows), torch.split(whole.bias, rows), strict=True)
    for one, (weight, bias) in zip(members, views, strict=True):
        one.weight = nn.Parameter(weight, requires_grad=False)
        one.bias = nn.Parameter(bias, requires_grad=False)
    return whole
