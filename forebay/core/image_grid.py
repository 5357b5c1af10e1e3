"""How large a picture becomes before the vision tower sees it, and how many tokens it then costs.

Pure arithmetic on width and height, so the door can price a picture from its header alone.
Source: ``smart_resize`` of the Glm4v image processor in Hugging Face ``transformers``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class GridRules:
    """The numbers of ``preprocessor_config.json`` that decide a picture's grid.

    ``min_pixels`` and ``max_pixels`` are compared with *temporal* pixels, as in the reference: a
    still picture counts ``temporal_patch_size`` times its height times its width.
    """

    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 112 * 112
    max_pixels: int = 28 * 28 * 15000

    @classmethod
    def from_preprocessor(cls, raw: Mapping[str, Any]) -> GridRules:
        """Read a parsed ``preprocessor_config.json``; bad fields raise TypeError or ValueError."""
        size = raw.get("size") or {}
        default = cls()
        return cls(
            patch_size=int(raw.get("patch_size", default.patch_size)),
            merge_size=int(raw.get("merge_size", default.merge_size)),
            temporal_patch_size=int(raw.get("temporal_patch_size", default.temporal_patch_size)),
            min_pixels=int(size.get("shortest_edge", default.min_pixels)),
            max_pixels=int(size.get("longest_edge", default.max_pixels)),
        )

    @property
    def factor(self) -> int:
        """Side, in pixels, of the square that one visual token covers."""
        return self.patch_size * self.merge_size


def smart_resize(height: int, width: int, rules: GridRules) -> tuple[int, int]:
    """Return the (height, width) in pixels that a picture is resized to.

    Both are multiples of ``rules.factor``; the aspect ratio is kept as far as that allows.

    Raises:
        ValueError: a side is not positive, or one side is over 200 times the other.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a picture needs at least one pixel a side, got {width}x{height}")
    factor, frames = rules.factor, rules.temporal_patch_size
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ValueError(
            f"one side may be at most {MAX_ASPECT_RATIO} times the other, got {width}x{height}"
        )
    rounded_h = round(height / factor) * factor
    rounded_w = round(width / factor) * factor
    if frames * rounded_h * rounded_w > rules.max_pixels:
        beta = math.sqrt(frames * height * width / rules.max_pixels)
        rounded_h = max(factor, math.floor(height / beta / factor) * factor)
        rounded_w = max(factor, math.floor(width / beta / factor) * factor)
    elif frames * rounded_h * rounded_w < rules.min_pixels:
        beta = math.sqrt(rules.min_pixels / (frames * height * width))
        rounded_h = math.ceil(height * beta / factor) * factor
        rounded_w = math.ceil(width * beta / factor) * factor
    return rounded_h, rounded_w


def patch_grid(height: int, width: int, rules: GridRules) -> tuple[int, int]:
    """Return the grid (rows, columns) of patches of a picture of that size."""
    resized_h, resized_w = smart_resize(height, width, rules)
    return resized_h // rules.patch_size, resized_w // rules.patch_size


def visual_tokens(height: int, width: int, rules: GridRules) -> int:
    """Return how many tokens of the language model a picture of that size takes."""
    rows, columns = patch_grid(height, width, rules)
    return rows * columns // rules.merge_size**2
