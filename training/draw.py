"""Draws a scene at any scale and says where each glyph went."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training import backgrounds, fonts
from training.scene import Effects, Polygon, Ring, Scene, Shape, Text

_NOISE_SIDE = 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn line of text, in model pixels of the scene."""

    item: Text
    edges: npt.NDArray[np.float64]  # left edge of each glyph and the right end, from the centre
    height: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished picture with the places of its lines."""

    picture: Image.Image
    lines: tuple[Line, ...]


def draw(scene: Scene, scale: float = 1.0, seed: int = 0) -> Drawn:
    """Draw a scene ``scale`` times its model size. ``seed`` chooses the noise."""
    size = (max(1, round(scene.width * scale)), max(1, round(scene.height * scale)))
    picture = backgrounds.paint(scene.background, size, scale)
    lines: list[Line] = []
    for item in scene.items:
        if isinstance(item, Text):
            lines.append(_text(picture, item, scale))
        elif isinstance(item, Shape):
            _shape(picture, item, scale)
        elif isinstance(item, Polygon):
            _polygon(picture, item, scale)
        else:
            _ring(picture, item, scale)
    return Drawn(_wear(picture, scene.effects, scale, seed), tuple(lines))


def _text(picture: Image.Image, item: Text, scale: float) -> Line:
    """Draw a line through a mask, so that it can be turned and half transparent."""
    size = max(4, round(item.em * scale))
    font = fonts.load(item.face, size)
    gap = item.spacing * size
    advances = [fonts.advance(item.face, c) * size + gap for c in item.text]
    edges = np.concatenate(([0.0], np.cumsum(advances)))
    left, top, right, bottom = font.getbbox(item.text)
    pad = 3
    wide = math.ceil(max(edges[-1], right) - min(0.0, left)) + 2 * pad
    tall = math.ceil(bottom - top) + 2 * pad
    mask = Image.new("L", (wide, tall), 0)
    pen = ImageDraw.Draw(mask)
    if gap:
        for character, x in zip(item.text, edges, strict=False):
            pen.text((pad + x, pad - top), character, fill=item.alpha, font=font)
    else:
        pen.text((pad, pad - top), item.text, fill=item.alpha, font=font)
    if item.strike:
        thick = max(1, round(size / 14))
        pen.line((0, tall / 2, wide, tall / 2 - size * 0.05), fill=255, width=thick)
    if item.angle:
        mask = mask.rotate(item.angle, Image.Resampling.BICUBIC, expand=True)
    corner = (round(item.x * scale - mask.width / 2), round(item.y * scale - mask.height / 2))
    picture.paste(item.rgb, corner, mask)
    return Line(item, (edges + pad - wide / 2) / scale, (bottom - top) / scale)


@lru_cache(maxsize=1)
def _outlines() -> dict[str, tuple[tuple[float, float], ...]]:
    """Corner points of the shapes, in a square from -1 to 1."""
    star = []
    for at in range(10):
        radius = 1.08 if at % 2 == 0 else 0.45
        angle = math.pi * at / 5 - math.pi / 2
        star.append((radius * math.cos(angle), radius * math.sin(angle) + 0.06))
    turns = [2 * math.pi * at / 40 for at in range(40)]
    heart = [
        (
            math.sin(t) ** 3,
            0.05
            - (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)) / 16
            + math.cos(4 * t) / 16,
        )
        for t in turns
    ]
    return {
        "square": ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
        "triangle": ((0, -0.95), (1, 0.85), (-1, 0.85)),
        "diamond": ((0, -1), (0.62, 0), (0, 1), (-0.62, 0)),
        "star": tuple(star),
        "heart": tuple(heart),
        "circle": tuple((math.cos(t), math.sin(t)) for t in turns),
    }


def _shape(picture: Image.Image, item: Shape, scale: float) -> None:
    """Draw a shape twice as large and shrink it, for smooth edges."""
    sine, cosine = math.sin(math.radians(item.angle)), math.cos(math.radians(item.angle))
    radius = item.size * scale
    half = math.ceil(radius * 1.3) + 2
    points = [
        (
            2 * (half + radius * (x * cosine - y * sine)),
            2 * (half + radius * (x * sine + y * cosine)),
        )
        for x, y in _outlines()[item.name]
    ]
    mask = Image.new("L", (4 * half, 4 * half), 0)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    corner = (round(item.x * scale) - half, round(item.y * scale) - half)
    if item.outline:
        edge = mask.copy()
        width = max(2, round(2.4 * scale))
        ImageDraw.Draw(edge).line([*points, points[0]], fill=255, width=width)
        picture.paste(item.outline, corner, edge.reduce(2))
        ImageDraw.Draw(mask).line([*points, points[0]], fill=0, width=width)
    picture.paste(item.rgb, corner, mask.reduce(2))


def _polygon(picture: Image.Image, item: Polygon, scale: float) -> None:
    pen = ImageDraw.Draw(picture)
    points = [(x * scale, y * scale) for x, y in item.points]
    width = max(1, round(scale))
    if item.radius:
        box = (*points[0], *points[1])
        pen.rounded_rectangle(box, item.radius * scale, item.rgb, item.outline, width)
    else:
        pen.polygon(points, fill=item.rgb)
        if item.outline:
            pen.line([*points, points[0]], fill=item.outline, width=width)


def _ring(picture: Image.Image, item: Ring, scale: float) -> None:
    pen = ImageDraw.Draw(picture)
    x, y, size = item.x * scale, item.y * scale, item.size * scale
    box = (x - size, y - size, x + size, y + size)
    width = max(2, round(size * 0.22))
    pen.ellipse(box, fill=(255, 255, 255))
    pen.rectangle(
        (x - size * 0.25, y - size * 0.4, x + size * 0.25, y + size * 0.4), fill=(0, 0, 0)
    )
    pen.ellipse(box, outline=item.rgb, width=width)
    reach = size * 0.68
    pen.line((x - reach, y - reach, x + reach, y + reach), fill=item.rgb, width=width)


@lru_cache(maxsize=1)
def _grain() -> tuple[Image.Image, Image.Image]:
    """Two sheets of coloured grain of 40 grey levels, one to add and one to subtract."""
    rng = np.random.default_rng(21)
    grain = rng.normal(0, 40, (_NOISE_SIDE, _NOISE_SIDE, 3))
    return (
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)),
        Image.fromarray(np.clip(-grain, 0, 255).astype(np.uint8)),
    )


def _wear(picture: Image.Image, effects: Effects, scale: float, seed: int) -> Image.Image:
    if effects.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(effects.blur * scale))
    if effects.noise:
        picture = _add_noise(picture, effects.noise, seed)
    if effects.jpeg:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=effects.jpeg)
        picture = Image.open(buffer).convert("RGB")
    return picture


def _add_noise(picture: Image.Image, amount: float, seed: int) -> Image.Image:
    x = seed * 7919 % (_NOISE_SIDE - picture.width + 1)
    y = seed * 104729 % (_NOISE_SIDE - picture.height + 1)
    box = (x, y, x + picture.width, y + picture.height)
    table = [min(255, round(level * amount / 40)) for level in range(256)] * 3
    more, less = (sheet.crop(box).point(table) for sheet in _grain())
    return ImageChops.subtract(ImageChops.add(picture, more), less)
