"""The language decoder over packed tokens. Who attends to what is the caller's business.

Source: ``Glm4vTextModel`` of Hugging Face ``transformers``; parameter names are its own.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forebay.models.glm4v.config import TextConfig
from forebay.models.glm4v.layers import Linear, RMSNorm, joined


class Attend(Protocol):
    """Causal attention of a packed batch: stores new keys and values, reads the old ones.

    Called once a layer with ``q`` [T, heads, width] and ``k``, ``v`` [T, kv heads, width] of the
    batch's T new tokens; returns [T, heads, width].
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend in one layer."""
        ...


class TextAttention(nn.Module):
    """Grouped-query attention with M-RoPE on a part of every head."""

    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        q_width = config.num_attention_heads * config.head_dim
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = Linear(width, q_width, bias=True)
        self.k_proj = Linear(width, kv_width, bias=True)
        self.v_proj = Linear(width, kv_width, bias=True)
        self.o_proj = Linear(q_width, width, bias=False)
        self.qkv_proj: nn.Module | None = None

    def join(self) -> None:
        """Make the three projections of the input one matrix, for inference."""
        self.qkv_proj = joined((self.q_proj, self.k_proj, self.v_proj))
        del self.q_proj, self.k_proj, self.v_proj

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """Map [T, hidden] to [T, hidden]."""
        tokens = x.shape[0]
        heads = self._project(x).view(tokens, -1, self.head_dim)
        turned, v = heads.tensor_split((self.heads + self.kv_heads,), dim=1)
        q, k = _rotate(turned, *rotary).tensor_split((self.heads,), dim=1)
        out = attend(self.layer, q, k, v)
        mixed: Tensor = self.o_proj(out.reshape(tokens, -1))
        return mixed

    def _project(self, x: Tensor) -> Tensor:
        """Return queries, keys and values side by side."""
        if self.qkv_proj is None:
            return torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        out: Tensor = self.qkv_proj(x)
        return out


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the first dimensions; the rest pass through.

    Args:
        x: [T, heads, width].
        cos: cosines of the pairs' angles, [T, 1, pairs].
        sin: sines of the same.
    """
    pairs = cos.shape[-1]
    turned, passed = x[..., : 2 * pairs], x[..., 2 * pairs :]
    even, odd = turned[..., 0::2], turned[..., 1::2]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, passed), dim=-1)


class TextMLP(nn.Module):
    """Gated MLP with the gate and the up projection in one matrix."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_up_proj = Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [T, hidden] to [T, hidden]."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(up * F.silu(gate))
        return out


class DecoderLayer(nn.Module):
    """Attention and MLP, each with a norm before and a norm after."""

    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = TextAttention(config, layer)
        self.mlp = TextMLP(config)
        self.input_layernorm = RMSNorm(size, eps)
        self.post_attention_layernorm = RMSNorm(size, eps)
        self.post_self_attn_layernorm = RMSNorm(size, eps)
        self.post_mlp_layernorm = RMSNorm(size, eps)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """Map [T, hidden] to [T, hidden]."""
        mixed = self.self_attn(self.input_layernorm(x), rotary, attend)
        x = x + self.post_self_attn_layernorm(mixed)
        fed: Tensor = self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(x)))
        return x + fed


class Decoder(nn.Module):
    """The stack of decoder layers with its embedding table and its last norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embeds: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run the layers over packed tokens.

        Args:
            embeds: [T, hidden].
            positions: temporal, height and width positions, [3, T].
            attend: attention over the caller's cache.

        Returns:
            Hidden states [T, hidden] after the last norm.
        """
        cos, sin = self._rotary(positions)
        rotary = cos.to(embeds.dtype), sin.to(embeds.dtype)
        x = embeds
        for layer in self.layers:
            x = layer(x, rotary, attend)
        out: Tensor = self.norm(x)
        return out

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, 1, rotary_dim / 2]; each section of the angles has its own axis."""
        config = self.config
        dim = config.rotary_dim
        exponents = torch.arange(0, dim, 2, dtype=torch.float, device=positions.device) / dim
        inverse = 1.0 / config.rope_theta**exponents
        axis = torch.cat(
            [torch.full((size,), at % 3) for at, size in enumerate(config.mrope_section)]
        ).to(positions.device)
        angles = (positions.float()[axis].t() * inverse).unsqueeze(1)
        return angles.cos(), angles.sin()
