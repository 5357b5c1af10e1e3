"""A fixed pool of grey textures; scenes tint them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from training.scene import Background

TEXTURES = 40
_SIDE = 256
Grey = npt.NDArray[np.float64]


@lru_cache(maxsize=1)
def pool() -> tuple[Image.Image, ...]:
    """Return the textures: plain, gradients, stripes, checks, grain, clouds."""
    rng = np.random.default_rng(20)
    return tuple(_texture(rng, at % 8) for at in range(TEXTURES))


def _texture(rng: np.random.Generator, kind: int) -> Image.Image:
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    if kind == 0:
        grey: Grey = np.zeros_like(x)
    elif kind == 1:
        grey = along
    elif kind == 2:
        grey = np.sin(along * rng.uniform(40, 160))
    elif kind == 3:
        grey = np.sign(np.sin(along * rng.uniform(30, 120)))
    elif kind == 4:
        step = rng.uniform(30, 90)
        grey = np.sign(np.sin(x * step) * np.sin(y * step))
    elif kind == 5:
        grey = rng.random((_SIDE, _SIDE))
    elif kind == 6:
        grey = (x - rng.random()) ** 2 + (y - rng.random()) ** 2
    else:
        grey = _clouds(rng)
    low, high = float(grey.min()), float(grey.max())
    scaled = (grey - low) / (high - low + 1e-9) * 255
    return Image.fromarray(scaled.astype(np.uint8))


def _clouds(rng: np.random.Generator) -> Grey:
    """Sum noise of several scales: what an unfocused photograph looks like."""
    total = np.zeros((_SIDE, _SIDE))
    for power in range(2, 7):
        cells = 2**power
        coarse = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        smooth = coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        total += np.asarray(smooth, dtype=np.float64) / cells**0.8
    return total


def paint(background: Background, size: tuple[int, int], scale: float) -> Image.Image:
    """Draw a background of ``size`` pixels whose texture is magnified by ``scale``."""
    if background.first == background.second:
        return Image.new("RGB", size, background.first)
    texture = pool()[background.texture]
    shrink = min(1.0, _SIDE * scale / max(size))
    wide, tall = size[0] / scale * shrink, size[1] / scale * shrink
    left = background.offset[0] * (_SIDE - wide)
    top = background.offset[1] * (_SIDE - tall)
    crop = texture.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall))
    return ImageOps.colorize(crop, background.first, background.second)
