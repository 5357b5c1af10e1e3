"""Pictures of coloured shapes: what colour is this one, how many are there."""

from __future__ import annotations

import math
from collections import Counter

from training.lists import COLOUR_NAMES, SHAPE_NAMES
from training.scene import Rgb, Scene, Shape, Skill
from training.scenes.common import Canvas, blank, distance, named_rgb, papers

MOST = 5  # shapes in a picture
_LEAST_DISTANCE = 95.0  # between a shape's colour and each background colour


def compose(canvas: Canvas, skill: Skill) -> Scene:
    """Compose a picture of shapes to ask the colour of one, or to count."""
    rng = canvas.rng
    scene = blank(canvas)
    if skill == "colour":
        wanted = rng.choice((1, 1, 2, 2, 3, 3, 4, 5) if canvas.height > 60 else (1, 1, 2, 2, 3))
        names = rng.sample(SHAPE_NAMES, min(wanted, len(SHAPE_NAMES)))
        if rng.random() < 0.25 and len(names) > 1:
            names.append(names[-1])
    else:
        names = _counted(canvas)
    scene.items += place(canvas, scene, names)
    scene.asks = ("colour", "count") if unique(scene) else ("count",)
    return scene


def _counted(canvas: Canvas) -> list[str]:
    """Draw up to five shapes, one kind often dominating so that every count comes up."""
    rng = canvas.rng
    main, *others = rng.sample(SHAPE_NAMES, len(SHAPE_NAMES))
    count = rng.randint(1, MOST)
    rest = rng.randint(0, MOST - count)
    return [main] * count + [rng.choice(others) for _ in range(rest)]


def unique(scene: Scene) -> list[Shape]:
    """Return the shapes of whose kind there is only one."""
    found = [item for item in scene.items if isinstance(item, Shape)]
    counts = Counter(shape.name for shape in found)
    return [shape for shape in found if counts[shape.name] == 1]


def counts(scene: Scene) -> Counter[str]:
    """Return how many shapes of each kind there are."""
    return Counter(item.name for item in scene.items if isinstance(item, Shape))


def place(canvas: Canvas, scene: Scene, names: list[str]) -> list[Shape]:
    """Put one shape a cell on a jittered grid, so that none overlap."""
    rng, count = canvas.rng, len(names)
    columns = max(1, round(math.sqrt(count * canvas.width / canvas.height)))
    if count > 1 and rng.random() < 0.5:
        columns += 1
    rows = math.ceil(count / columns)
    if columns * rows < count + 2 and rng.random() < 0.4:
        rows += 1
    wide, tall = canvas.width / columns, canvas.height / rows
    cells = rng.sample(range(columns * rows), count)
    shapes = []
    for name, cell in zip(names, cells, strict=True):
        most = min(wide, tall) / 2 - 2
        size = rng.uniform(min(8.0, most), min(most, 38.0))
        x = (cell % columns + 0.5) * wide + rng.uniform(-1, 1) * (wide / 2 - size - 1.5)
        y = (cell // columns + 0.5) * tall + rng.uniform(-1, 1) * (tall / 2 - size - 1.5)
        shapes.append(_shape(canvas, scene, name, (x, y), size))
    return shapes


def _shape(canvas: Canvas, scene: Scene, name: str, at: tuple[float, float], size: float) -> Shape:
    rng = canvas.rng
    for _ in range(60):
        colour = rng.choice(COLOUR_NAMES)
        rgb: Rgb = named_rgb(rng, colour)
        if all(distance(rgb, paper) > _LEAST_DISTANCE for paper in papers(scene)):
            break
    else:
        scene.background.second = scene.background.first = (
            (255, 255, 255) if sum(rgb) < 380 else (0, 0, 0)
        )
    outline = None
    if rng.random() < 0.15:
        outline = (20, 20, 20) if sum(rgb) > 300 else (235, 235, 235)
    return Shape(name, colour, rgb, *at, size, rng.uniform(-14, 14), outline)


def scatter(canvas: Canvas, scene: Scene, count: int, size: float) -> list[Shape]:
    """Put a few small shapes near the border, as decoration of a text picture."""
    rng = canvas.rng
    shapes = []
    for _ in range(count):
        at = (rng.uniform(size, canvas.width - size), rng.uniform(size, canvas.height - size))
        shapes.append(_shape(canvas, scene, rng.choice(SHAPE_NAMES), at, size))
    return shapes
