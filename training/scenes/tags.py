"""Price tags and labels: one or several lines of text on a tag or straight on the picture."""

from __future__ import annotations

import itertools

from training.lists import Language
from training.scene import LineKind, Polygon, Rgb, Scene, Skill, Text
from training.scenes import shapes, words
from training.scenes.common import Box, Canvas, any_rgb, blank, fit, ink, papers


def compose(canvas: Canvas, skill: Skill, language: Language | None = None) -> Scene:
    """Compose a picture about whose price or label is asked. ``language`` is the label's script."""
    while True:
        scene = _compose(canvas, skill, language)
        if scene is not None:
            return scene


def _compose(canvas: Canvas, skill: Skill, language: Language | None) -> Scene | None:
    rng = canvas.rng
    scene = blank(canvas)
    lines = _lines(canvas, skill, language)
    bare = rng.random() < 0.4
    if not bare and rng.random() < 0.3:  # the tag is laid over them
        scene.items += shapes.scatter(canvas, scene, rng.randint(1, 3), rng.uniform(5, 12))
    box = (
        Box(2, 2, canvas.width - 4, canvas.height - 4, papers(scene))
        if bare
        else _paper(canvas, scene)
    )
    rng.shuffle(lines)
    boxes = _split(canvas, box, len(lines)) if len(lines) > 1 else [box]
    for (text, kind), place in zip(lines, boxes, strict=True):
        shown: LineKind = "label" if kind == "label" else "price"
        line = fit(canvas, text, shown, place)
        if line is None:
            return None
        if kind == "old":
            line.kind, line.strike = "other", True
        scene.items.append(line)
    scene.price = next((t for t, kind in lines if kind == "price"), None)
    scene.label = next((t for t, kind in lines if kind == "label"), None)
    asks: list[Skill] = ["price"] if scene.price is not None else []
    if scene.label is not None:
        asks.append("label")
    scene.asks = tuple(asks)
    return scene


def _lines(canvas: Canvas, skill: Skill, language: Language | None) -> list[tuple[str, str]]:
    """Return the lines with their kinds: price, label or an old, crossed-out price."""
    rng = canvas.rng
    hanzi = language == "zh" if language is not None else rng.random() < 0.45
    longest = min(8, int((canvas.width - 8) / 13))
    if skill == "label":
        lines = [(words.label(rng, hanzi, longest), "label")]
        if rng.random() < 0.2:
            lines.append((_signed(canvas), "price"))
        return lines
    lines = [(words.price(rng, min(10, int((canvas.width - 8) / 10))), "price")]
    draw = rng.random()
    if draw < 0.25:
        text = words.label(rng, hanzi, longest)
        if not text.isdigit():
            lines = [(_signed(canvas), "price"), (text, "label")]
    elif draw < 0.33:
        lines.append((_signed(canvas), "old"))
    return lines


def _signed(canvas: Canvas) -> str:
    """Draw a price that nobody takes for a label: it has a sign or a decimal point."""
    while True:
        text = words.price(canvas.rng, min(9, int((canvas.width - 8) / 10)))
        if not text.isdigit():
            return text


def _paper(canvas: Canvas, scene: Scene) -> Box:
    """Lay a tag on the scene and return the box to write in."""
    rng, width, height = canvas.rng, canvas.width, canvas.height
    wide = rng.uniform(min(width - 5, max(94.0, 0.6 * width)), width - 4)
    tall = rng.uniform(min(0.45 * height + 10, height - 6), height - 4)
    left, top = rng.uniform(2, width - 2 - wide), rng.uniform(2, height - 2 - tall)
    rgb: Rgb = any_rgb(rng)
    outline = ink(rng, rgb, contrast=50) if rng.random() < 0.4 else None
    corners = ((left, top), (left + wide, top + tall))
    scene.items.append(Polygon(corners, rgb, outline, rng.choice((0.5, 3.0, 8.0))))
    return Box(left + 1, top + 1, wide - 2, tall - 2, (rgb,))


def _split(canvas: Canvas, box: Box, count: int) -> list[Box]:
    """Cut a box into rows."""
    inner = [box.height * (at / count + canvas.rng.uniform(-0.08, 0.08)) for at in range(1, count)]
    cuts = [0.0, *inner, box.height]
    return [
        Box(box.x, box.y + top, box.width, bottom - top, box.papers)
        for top, bottom in itertools.pairwise(cuts)
    ]


def packed(canvas: Canvas) -> Scene:
    """Compose a picture full of text lines, for the dense labels alone."""
    rng = canvas.rng
    scene = blank(canvas)
    top = 0.0
    while top < canvas.height - 19:
        tall = canvas.height if canvas.height < 38 else rng.uniform(19, 42)
        place = Box(1, top, canvas.width - 2, min(tall, canvas.height - top), papers(scene))
        kind: LineKind = "price" if rng.random() < 0.35 else "label"
        hanzi = rng.random() < 0.45
        text = words.price(rng, 9) if kind == "price" else words.label(rng, hanzi, 8)
        line = fit(canvas, text, kind, place, tilt=3.0)
        if line is not None:
            scene.items.append(line)
        top += tall
    _may_ask(scene)
    return scene


def _may_ask(scene: Scene) -> None:
    """Let a packed picture be asked about where only one line can be meant."""
    lines = texts(scene)
    prices = [line.text for line in lines if line.kind == "price"]
    labels = [line.text for line in lines if line.kind == "label"]
    clear = len(lines) == 1 or all(not text.isdigit() for text in prices + labels)
    if len(prices) == 1 and clear:
        scene.price = prices[0]
        scene.asks = ("price",)
    if len(labels) == 1 and clear:
        scene.label = labels[0]
        scene.asks = (*scene.asks, "label")


def texts(scene: Scene) -> list[Text]:
    """Return the lines of a scene."""
    return [item for item in scene.items if isinstance(item, Text)]
