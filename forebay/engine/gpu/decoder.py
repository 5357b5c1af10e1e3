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
        self._joined = [_join_projections(layer.self_attn) for layer in self._layers()]

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
        qkv = self._project(part, layer, normed).view(len(normed), -1, part.head_dim)
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
        found = [joined[0] for joined in self._joined if joined is not None]
        for layer in self._layers():
            found += plain_weights(
                layer.self_attn.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj
            )
        return found

    def _project(self, part: TextAttention, layer: int, x: Tensor) -> Tensor:
        """Return queries, keys and values side by side, [T, (heads + 2 kv heads) * width]."""
        joined = self._joined[layer]
        if joined is None:
            return torch.cat([part.q_proj(x), part.k_proj(x), part.v_proj(x)], dim=-1)
        return self._ops.product(x, *joined)

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


def _join_projections(part: TextAttention) -> tuple[Tensor, Tensor] | None:
    """Lay the weights of the three projections end to end, so that one product does for all.

    The projections keep their names and become views of the weight and bias returned. Where they
    are no plain linear layers (quantized ones) nothing changes, and None is returned.
    """
    members = (part.q_proj, part.k_proj, part.v_proj)
    if not all(isinstance(one, nn.Linear) for one in members):
        return None
    weight = torch.cat([one.weight for one in members])
    bias = torch.cat([one.bias for one in members])
    at = 0
    for one in members:
        end = at + one.out_features
        one.weight = nn.Parameter(weight[at:end], requires_grad=False)
        one.bias = nn.Parameter(bias[at:end], requires_grad=False)
        at = end
    return weight, bias
