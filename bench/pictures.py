"""Draws the pictures of the load: 512x512, photograph-like, all distinct, everywhere the same.

A photograph costs a JPEG decoder what its texture costs, so flat shapes would be too cheap: these
have light, ground, objects, fractal texture and a sensor's noise, and come to 60 to 90 KB each.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image

SIDE = 512
QUALITY = 88
_OBJECTS = 7
_OCTAVES = (4, 8, 16, 32, 64, 128)
_SENSOR_NOISE = 6.0
_KEPT = 1024

Plane: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@lru_cache(maxsize=_KEPT)
def picture(index: int) -> bytes:
    """Return the JPEG bytes of picture ``index``."""
    source = np.random.default_rng(index)
    scene = _ground(source)
    for _ in range(_OBJECTS):
        _place_object(source, scene)
    scene *= (0.75 + 0.5 * _texture(source))[..., None]
    scene += source.normal(0, _SENSOR_NOISE, scene.shape).astype(np.float32)
    out = io.BytesIO()
    pixels = scene.clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _ground(source: np.random.Generator) -> Plane:
    """Return a sky that passes into a ground, [side, side, 3]."""
    top, bottom = (source.uniform(30, 225, 3).astype(np.float32) for _ in range(2))
    horizon = source.uniform(0.3, 0.7)
    height = np.linspace(0, 1, SIDE, dtype=np.float32)
    below = 1 / (1 + np.exp((horizon - height) * 12)).astype(np.float32)
    rows = top + (bottom - top) * below[:, None]
    return np.repeat(rows[:, None, :], SIDE, axis=1).astype(np.float32)


def _texture(source: np.random.Generator) -> Plane:
    """Return noise of several sizes, [side, side] in 0 to 1: the finer, the fainter."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for cells in _OCTAVES:
        coarse = Image.fromarray(source.random((cells, cells), dtype=np.float32))
        fine = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        total += fine / cells**0.5
    total -= total.min()
    scaled: Plane = total / total.max()
    return scaled


def _place_object(source: np.random.Generator, scene: Plane) -> None:
    """Paint an ellipse or a box, lit from one side and rough, over a part of the scene."""
    width, height = source.integers(40, 200, 2)
    left, top = source.integers(0, SIDE - width), source.integers(0, SIDE - height)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    inside = x**2 + y**2 < 1 if source.random() < 0.5 else np.ones_like(x, bool)
    colour = source.uniform(20, 235, 3).astype(np.float32)
    angle = source.uniform(0, 2 * np.pi)
    light = 1 + 0.35 * (x * np.cos(angle) + y * np.sin(angle))
    rough = 1 + 0.12 * source.standard_normal(x.shape).astype(np.float32)
    patch = scene[top : top + height, left : left + width]
    patch[inside] = (colour * (light * rough)[..., None])[inside]
