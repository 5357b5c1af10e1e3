"""The vision tower and its projector, over pictures of any sizes packed one after the other.

Source: ``Glm4vVisionModel`` of Hugging Face ``transformers``; parameter names are its own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forebay.models.glm4v.config import VisionConfig
from forebay.models.glm4v.layers import ONEDNN, GatedMLP, Linear, RMSNorm, linear_of, product
from forebay.models.varlen import Bounds, attend_packed

Grid = tuple[int, int]

PATCHES_A_PASS = 2048
"""A CPU takes pictures of this many patches at once: more would only leave its caches."""

KEPT_LAYOUTS = 8
KEPT_LAYOUT_BYTES = 8 * 2**20
"""How many pictures' layouts are kept, and the largest that is."""

_LAYOUTS = threading.Lock()
"""Held to change what layouts a tower keeps; one for all towers, for a lock cannot be copied."""

BY_HEAD_FROM = 512
BY_HEAD_ROWS = 1296
"""Patches from which a picture's heads attend one by one, and how many attend at once."""


@dataclass(frozen=True, slots=True)
class PackedGrids:
    """Where every patch of a packed batch sits. Built once a batch, read by every block.

    ``rows`` and ``columns``: coordinates of each patch, [N]. ``groups``: for each distinct
    picture length, that length and the indices [pictures, length] of its patches, so that
    pictures of one length attend as one batch and none is padded. ``bounds``: only on a GPU,
    where pictures of all lengths attend in one launch.
    """

    rows: Tensor
    columns: Tensor
    heights: Tensor
    widths: Tensor
    groups: tuple[tuple[int, Tensor | None], ...]
    bounds: Bounds | None = None

    @classmethod
    def build(cls, grids: Sequence[Grid], merge: int, device: torch.device) -> PackedGrids:
        """Lay out the patches of ``grids`` (rows, columns) in the processor's merge order."""
        rows, columns, heights, widths = [], [], [], []
        starts: dict[int, list[int]] = {}
        offset = 0
        for height, width in grids:
            y, x = _merge_order(height, width, merge)
            rows.append(y)
            columns.append(x)
            heights.append(torch.full_like(y, height))
            widths.append(torch.full_like(y, width))
            starts.setdefault(height * width, []).append(offset)
            offset += height * width
        return cls(
            rows=torch.cat(rows).to(device),
            columns=torch.cat(columns).to(device),
            heights=torch.cat(heights).to(device),
            widths=torch.cat(widths).to(device),
            groups=_groups(starts, device),
            bounds=Bounds.of([h * w for h, w in grids], device) if device.type == "cuda" else None,
        )


def _merge_order(height: int, width: int, merge: int) -> tuple[Tensor, Tensor]:
    """Coordinates of a picture's patches, the patches of one visual token side by side."""
    y = torch.arange(height).view(-1, 1).expand(height, width)
    x = torch.arange(width).view(1, -1).expand(height, width)
    shape = (height // merge, merge, width // merge, merge)
    y, x = (t.reshape(shape).permute(0, 2, 1, 3).reshape(-1) for t in (y, x))
    return y, x


def _groups(
    starts: dict[int, list[int]], device: torch.device
) -> tuple[tuple[int, Tensor | None], ...]:
    if len(starts) == 1:  # one length: a view does, no gather
        return ((next(iter(starts)), None),)
    return tuple(
        (length, (torch.tensor(at).view(-1, 1) + torch.arange(length)).to(device))
        for length, at in starts.items()
    )


class PatchEmbed(nn.Module):
    """One linear map of a patch's pixels.

    The reference feeds each still picture twice along time; the sum of the two halves of the
    kernel over one copy of the pixels is the same number for half the bytes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj: nn.Conv3d | Linear = nn.Conv3d(
            config.in_channels, config.hidden_size, kernel, kernel
        )

    def join(self) -> None:
        """Sum the halves of the kernel once, for inference."""
        if isinstance(self.proj, nn.Conv3d):
            self.proj = linear_of(self._matrix(self.proj), self.proj.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Map pixels [N, channels * patch * patch] to [N, hidden]."""
        patches = patches.to(self.proj.weight.dtype)
        if isinstance(self.proj, nn.Conv3d):
            return F.linear(patches, self._matrix(self.proj), self.proj.bias)
        out: Tensor = self.proj(patches)
        return out

    @staticmethod
    def _matrix(kernel: nn.Conv3d) -> Tensor:
        return kernel.weight.sum(dim=2).flatten(1)


class PositionEmbedding(nn.Module):
    """Learned 2-D positions, sampled bicubically at each picture's own grid."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, grids: PackedGrids) -> Tensor:
        """Return [N, hidden]."""
        weight = self.position_embedding.weight
        table = weight.view(self.side, self.side, -1).permute(2, 0, 1).unsqueeze(0).float()
        x = (grids.columns + 0.5) / grids.widths * 2 - 1
        y = (grids.rows + 0.5) / grids.heights * 2 - 1
        at = torch.stack((x, y), dim=-1).view(1, -1, 1, 2).float()
        sampled = F.grid_sample(
            table, at, mode="bicubic", align_corners=False, padding_mode="border"
        )
        return sampled.view(weight.shape[1], -1).t().to(weight.dtype)


class VisionAttention(nn.Module):
    """Full attention inside each picture.

    ``narrow``: attend to long pictures in bfloat16. Set with INT8 weights on a CPU that multiplies
    bfloat16: single precision would take longer there than all INT8 products together.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.narrow = False
        self.heads = config.num_heads
        self.qkv = Linear(config.hidden_size, config.hidden_size * 3, bias=config.attention_bias)
        self.proj = Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, grids: PackedGrids, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Attend over packed patches [N, hidden]."""
        count, hidden = x.shape
        heads = self.qkv(x).view(count, 3 * self.heads, -1)
        turned, v = heads.tensor_split((2 * self.heads,), dim=1)
        q, k = _rotate(turned, *rotary).chunk(2, dim=1)
        if grids.bounds is not None:
            together = attend_packed(q, k, v, grids.bounds, grids.bounds, causal=False)
            attended: Tensor = self.proj(together.reshape(count, hidden))
            return attended
        out = torch.empty_like(v) if len(grids.groups) > 1 else v
        for length, index in grids.groups:
            attend = _attend if length < BY_HEAD_FROM else self._attend_long
            if index is None:
                parts = (t.unflatten(0, (-1, length)) for t in (q, k, v))
                out = attend(*parts).reshape(count, self.heads, -1)
            else:
                out[index] = attend(q[index], k[index], v[index])
        mixed: Tensor = self.proj(out.reshape(count, hidden))
        return mixed

    def _attend_long(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.narrow:
            return _attend_by_head(q, k, v, torch.bfloat16)
        if ONEDNN and q.dtype == torch.float32 and not torch.is_grad_enabled():
            return _attend_by_head(q, k, v, q.dtype)
        return _attend(q, k, v)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over [pictures, length, heads, width], the same shape out."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _attend_by_head(q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention as :func:`_attend`, in ``dtype``, the sums of the softmax in single precision.

    One head of one picture at a time: its scores stay in the cache, and a picture's result does
    not depend on the others.
    """
    out = torch.empty_like(v)
    parts = (q * q.shape[-1] ** -0.5).transpose(1, 2), k.transpose(1, 2), v.permute(0, 2, 3, 1)
    heads = (part.to(dtype).contiguous().flatten(0, 1) for part in parts)
    places = out.transpose(1, 2).unbind(0)
    targets = [target for picture in places for target in picture.unbind(0)]
    for target, one, keys, values in zip(targets, *heads, strict=True):
        for rows, place in zip(
            torch.split(one, BY_HEAD_ROWS), torch.split(target, BY_HEAD_ROWS), strict=True
        ):
            place.copy_(product(product(rows, keys).softmax(-1), values))
    return out


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of every head [N, heads, width], in fp32 as the reference does.

    ``cos`` and ``sin`` of the angles: [N, 1, width / 2].
    """
    first, second = x.float().chunk(2, dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


class VisionBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = VisionAttention(config)
        self.mlp = GatedMLP(config.hidden_size, config.out_hidden_size)

    def forward(self, x: Tensor, grids: PackedGrids, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Map packed patches [N, hidden] to [N, hidden]."""
        x = x + self.attn(self.norm1(x), grids, rotary)
        fed: Tensor = self.mlp(self.norm2(x))
        return x + fed


class Projector(GatedMLP):
    """From merged patches to the decoder's embedding space."""

    def __init__(self, config: VisionConfig) -> None:
        width = config.out_hidden_size
        super().__init__(width, config.intermediate_size)
        self.proj = Linear(width, width, bias=False)
        self.post_projection_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [visual tokens, out_hidden] to the same shape."""
        return super().forward(F.gelu(self.post_projection_norm(self.proj(x))))


@dataclass(frozen=True, slots=True)
class _Layout:
    """All that follows from the grids of a batch alone."""

    packed: PackedGrids
    positions: Tensor
    rotary: tuple[Tensor, Tensor]

    @property
    def bytes(self) -> int:
        parts = (self.positions, *self.rotary, self.packed.rows, self.packed.columns)
        return sum(part.numel() * part.element_size() for part in parts)


class VisionTower(nn.Module):
    """Patches of any number of pictures in, visual tokens of all of them out.

    What follows from a single picture's grid alone is kept for the next picture of that grid:
    pictures come in few shapes. Safe to call from several threads.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self._layouts: dict[tuple[Grid, torch.device], _Layout] = {}
        self.embeddings = PositionEmbedding(config)
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = Projector(config)
        self.post_conv_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.downsample: nn.Module = nn.Conv2d(
            config.hidden_size,
            config.out_hidden_size,
            config.spatial_merge_size,
            config.spatial_merge_size,
        )
        self.post_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Encode pictures.

        Args:
            patches: pixels [N, channels * patch * patch], all pictures one after the other, each
                in merge order (see ``forebay.models.processor``).
            grids: (rows, columns) in patches of each picture.

        Returns:
            Visual tokens [N / merge_unit, out_hidden] in the same order.
        """
        passes = _passes(grids) if _splits(patches) else [list(grids)]
        if len(passes) == 1:
            return self._encode(patches, grids)
        parts = torch.split(patches, [sum(map(math.prod, part)) for part in passes])
        encoded = (self._encode(*one) for one in zip(parts, passes, strict=True))
        return torch.cat(list(encoded))

    def _encode(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        layout = self._layout(grids, patches.device)
        x = self.post_conv_layernorm(self.patch_embed(patches))
        x = x + layout.positions
        for block in self.blocks:
            x = block(x, layout.packed, layout.rotary)
        return self._project(self.post_layernorm(x))

    def _layout(self, grids: Sequence[Grid], device: torch.device) -> _Layout:
        if torch.is_grad_enabled() or len(grids) > 1:
            return self._laid_out(grids, device)
        key = grids[0], device
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._laid_out(grids, device)
            if layout.bytes <= KEPT_LAYOUT_BYTES:
                with _LAYOUTS:
                    self._layouts[key] = layout
                    if len(self._layouts) > KEPT_LAYOUTS:
                        del self._layouts[next(iter(self._layouts))]
        return layout

    def _laid_out(self, grids: Sequence[Grid], device: torch.device) -> _Layout:
        packed = PackedGrids.build(grids, self.config.spatial_merge_size, device)
        return _Layout(packed, self.embeddings(packed), self._rotary(packed))

    def _rotary(self, grids: PackedGrids) -> tuple[Tensor, Tensor]:
        """Cosines and sines [N, 1, head_dim / 2] of the row and column angles."""
        half = self.config.head_dim // 2
        exponents = torch.arange(0, half, 2, dtype=torch.float, device=grids.rows.device) / half
        inverse = 1.0 / self.config.rope_theta**exponents
        angles = torch.cat(
            (grids.rows[:, None] * inverse, grids.columns[:, None] * inverse), dim=-1
        )
        angles = angles.unsqueeze(1)
        return angles.cos(), angles.sin()

    def _project(self, x: Tensor) -> Tensor:
        """Merge each ``merge_unit`` patches (a convolution over one cell is a matrix product)."""
        cells = x.view(-1, self.config.merge_unit, x.shape[-1]).transpose(1, 2).flatten(1)
        if isinstance(self.downsample, nn.Conv2d):
            merged = F.linear(cells, self.downsample.weight.flatten(1), self.downsample.bias)
        else:
            merged = self.downsample(cells)
        out: Tensor = self.merger(merged)
        return out


def _splits(patches: Tensor) -> bool:
    return patches.device.type == "cpu" and not torch.is_grad_enabled()


def _passes(grids: Sequence[Grid]) -> list[list[Grid]]:
    """Cut a batch of pictures where it would exceed ``PATCHES_A_PASS``."""
    passes: list[list[Grid]] = []
    room = 0
    for grid in grids:
        if math.prod(grid) > room:
            passes.append([])
            room = PATCHES_A_PASS
        passes[-1].append(grid)
        room -= math.prod(grid)
    return passes
