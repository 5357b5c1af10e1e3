"""Product pictures to approve or reject, the reason always visible."""

from __future__ import annotations

import math

from training.lists import REASON_NAMES
from training.scene import Polygon, Rgb, Ring, Scene, Text
from training.scenes import words
from training.scenes.common import (
    Box,
    Canvas,
    any_rgb,
    blank,
    distance,
    face_for,
    fit,
    papers,
    text_width,
)

_MARKS = ("SAMPLE", "WATERMARK", "DRAFT", "COPY", "仅供参考", "样图", "TEL 138")
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {  # in a unit square
    "bottle": (
        (0.4, 0), (0.6, 0), (0.6, 0.22), (0.75, 0.36), (0.75, 1), (0.25, 1), (0.25, 0.36),
        (0.4, 0.22),
    ),
    "shirt": (
        (0.3, 0.05), (0.42, 0.12), (0.58, 0.12), (0.7, 0.05), (1, 0.28), (0.87, 0.45),
        (0.76, 0.37), (0.76, 1), (0.24, 1), (0.24, 0.37), (0.13, 0.45), (0, 0.28),
    ),
    "cup": (
        (0.1, 0.1), (0.72, 0.1), (0.71, 0.25), (0.98, 0.25), (0.98, 0.7), (0.68, 0.7), (0.65, 1),
        (0.17, 1),
    ),
    "bag": (
        (0.3, 0.3), (0.3, 0.05), (0.7, 0.05), (0.7, 0.3), (0.95, 0.3), (1, 1), (0, 1), (0.05, 0.3)
    ),
    "shoe": (
        (0, 0.3), (0.25, 0.3), (0.42, 0.52), (0.8, 0.62), (1, 0.75), (1, 0.92), (0, 0.92)
    ),
    "box": ((0, 0.25), (0.28, 0), (1, 0), (1, 0.72), (0.72, 1), (0, 1)),
}  # fmt: skip


def compose(canvas: Canvas, reason: str | None = None) -> Scene:
    """Compose a product picture; ``reason`` None draws one of the verdicts."""
    rng = canvas.rng
    if reason is None:
        reason = rng.choice((*REASON_NAMES, "approve"))
    while True:
        scene = _compose(canvas, reason)
        if scene is not None:
            return scene


def _compose(canvas: Canvas, reason: str) -> Scene | None:
    rng = canvas.rng
    scene = blank(canvas)
    scene.reason, scene.asks = reason, ("review",)
    product, tag = _areas(canvas)
    if reason != "no product":
        scene.items += _product(canvas, scene, product)
    if reason != "no price" and (reason != "no product" or rng.random() < 0.5):
        text = words.price(rng, 7)
        if rng.random() < 0.6:
            rgb: Rgb = any_rgb(rng)
            corners = ((tag.x, tag.y), (tag.x + tag.width, tag.y + tag.height))
            scene.items.append(Polygon(corners, rgb, None, rng.choice((0.5, 4.0))))
            tag = Box(tag.x, tag.y, tag.width, tag.height, (rgb,))
        line = fit(canvas, text, "price", tag, tilt=4.0)
        if line is None:
            return None
        scene.items.append(line)
        scene.price = text
    if reason == "watermark":
        scene.items += _watermark(canvas, scene)
    elif reason == "prohibited sign":
        scene.items.append(_sign(canvas))
    elif reason == "blurred":
        scene.effects.blur = rng.uniform(3.5, 6.5)
    return scene


def _areas(canvas: Canvas) -> tuple[Box, Box]:
    """Split the picture into the product's place and the tag's."""
    rng, width, height = canvas.rng, canvas.width, canvas.height
    tall = rng.uniform(24, min(34.0, height * 0.3))
    wide = rng.uniform(min(88.0, width - 4), min(width - 4, 120.0))
    left = rng.uniform(2, width - 2 - wide)
    below = rng.random() < 0.6
    tag_top = height - tall - 2 if below else 2.0
    top = 3.0 if below else tall + 5
    return (
        Box(3, top, width - 6, height - tall - 8, ()),
        Box(left, tag_top, wide, tall, ()),
    )


def _product(canvas: Canvas, scene: Scene, area: Box) -> list[Polygon]:
    rng = canvas.rng
    side = min(area.width, area.height) * rng.uniform(0.72, 0.98)
    stretch = rng.uniform(0.8, 1.15)
    wide, tall = side * min(stretch, 1.0), side / max(stretch, 1.0)
    left = area.x + rng.uniform(0, area.width - wide)
    top = area.y + rng.uniform(0, area.height - tall)
    for _ in range(40):
        rgb = any_rgb(rng)
        if all(distance(rgb, paper) > 80 for paper in papers(scene)):
            break
    flip = rng.random() < 0.5
    outline = _OUTLINES[rng.choice(tuple(_OUTLINES))]
    points = tuple((left + wide * (1 - x if flip else x), top + tall * y) for x, y in outline)
    edge: Rgb | None = (rgb[0] // 2, rgb[1] // 2, rgb[2] // 2) if rng.random() < 0.5 else None
    body = [Polygon(points, rgb, edge)]
    if rng.random() < 0.5:
        band = any_rgb(rng)
        x0, x1 = left + wide * 0.32, left + wide * 0.66
        y0, y1 = top + tall * 0.62, top + tall * 0.85
        body.append(Polygon(((x0, y0), (x1, y1)), band, None, 1.0))
    return body


def _watermark(canvas: Canvas, scene: Scene) -> list[Text]:
    """Lay a half-transparent slanted line, once or several times, over the picture."""
    rng = canvas.rng
    text = rng.choice((*_MARKS, "TEL " + "".join(rng.choice("0123456789") for _ in range(7))))
    face = face_for(canvas, text)
    angle = rng.choice((-1, 1)) * rng.uniform(18, 42)
    lines = rng.choice((1, 1, 2, 3))
    reach = math.hypot(canvas.width, canvas.height) * (0.7 if lines == 1 else 0.55)
    em = max(13.0, min(reach / text_width(face, text), 34.0))
    mean = sum(sum(p) for p in papers(scene)) / 6
    grey = rng.randint(0, 60) if mean > 128 else rng.randint(190, 255)
    alpha = rng.randint(95, 170)
    found = []
    for at in range(lines):
        x = canvas.width / 2 + rng.uniform(-6, 6)
        y = canvas.height * (at + 1) / (lines + 1) + rng.uniform(-6, 6)
        rgb = (grey, grey, grey)
        found.append(Text(text, face, em, x, y, rgb, "other", angle, alpha=alpha, labelled=False))
    return found


def _sign(canvas: Canvas) -> Ring:
    rng = canvas.rng
    size = rng.uniform(13, min(canvas.width, canvas.height) * 0.28)
    x = rng.uniform(size + 2, canvas.width - size - 2)
    y = rng.uniform(size + 2, canvas.height - size - 2)
    return Ring(x, y, size, (rng.randint(190, 255), rng.randint(0, 40), rng.randint(0, 40)))
