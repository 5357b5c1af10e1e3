"""What every patch of a picture shows, for the dense loss of the vision tower.

Text labels live on cells of 7 x 14 model pixels (two a patch), shape labels on patches. Both are
arranged by visual token: [tokens, 8] cells and [tokens, 4] patches, row by row inside the token.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.draw import Line
from training.lists import (
    COLOUR_NAMES,
    GLYPH_INDEX,
    LINE_KINDS,
    MAX_ORDER,
    REASON_NAMES,
    SHAPE_NAMES,
)
from training.scene import Scene, Shape

Ints = npt.NDArray[np.int16]
CELL_WIDTH, CELL_HEIGHT = 7, 14
CELLS, PATCHES = 8, 4  # a token
MAX_COUNT = 9


@dataclass(frozen=True, slots=True)
class Labels:
    """Dense labels of one picture of ``tokens`` visual tokens."""

    kind: Ints  # [tokens, 8] index into LINE_KINDS
    glyph: Ints  # [tokens, 8] index into GLYPHS, -1 where there is none
    order: Ints  # [tokens, 8] place of the glyph in its line, -1 where there is none
    shape: Ints  # [tokens, 4] index into SHAPE_NAMES plus one, 0 for none
    colour: Ints  # [tokens, 4] index into COLOUR_NAMES, -1 for none
    centre: Ints  # [tokens, 4] index into SHAPE_NAMES plus one where a shape's centre lies
    counts: Ints  # [shapes] how many of each kind, -1 where the picture is of another sort
    reason: int  # index into REASON_NAMES, -1 where it is no product picture


def label(scene: Scene, lines: tuple[Line, ...], width: int, height: int) -> Labels:
    """Label a drawn scene that the processor brings to ``width`` x ``height`` model pixels."""
    stretch = (width / scene.width, height / scene.height)
    cells = _cells(lines, width, height, stretch)
    patches = _patches(scene, width, height, stretch)
    counted = Counter(i.name for i in scene.items if isinstance(i, Shape))
    known = scene.reason is None and scene.price is None and scene.label is None
    counts = [min(MAX_COUNT, counted[name]) if known else -1 for name in SHAPE_NAMES]
    kind, glyph, order = (_by_token(layer, 4) for layer in cells)
    shape, colour, centre = (_by_token(layer, 2) for layer in patches)
    return Labels(
        kind,
        glyph,
        order,
        shape,
        colour,
        centre,
        counts=np.asarray(counts, dtype=np.int16),
        reason=-1 if scene.reason is None else REASON_NAMES.index(scene.reason),
    )


def _by_token(layer: Ints, columns: int) -> Ints:
    """Rearrange [rows, columns of cells] to [tokens, 2 * columns]."""
    rows, wide = layer.shape
    parts = layer.reshape(rows // 2, 2, wide // columns, columns).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(parts).reshape(-1, 2 * columns)


def _cells(
    lines: tuple[Line, ...], width: int, height: int, stretch: tuple[float, float]
) -> tuple[Ints, Ints, Ints]:
    rows, columns = height // CELL_HEIGHT, width // CELL_WIDTH
    kind = np.zeros((rows, columns), dtype=np.int16)
    glyph, order = np.full_like(kind, -1), np.full_like(kind, -1)
    y, x = np.mgrid[0:rows, 0:columns]
    x_at = (x + 0.5) * CELL_WIDTH / stretch[0]
    y_at = (y + 0.5) * CELL_HEIGHT / stretch[1]
    for line in lines:
        item = line.item
        if not item.labelled:
            continue
        codes = np.asarray([GLYPH_INDEX.get(c, -1) for c in item.text], dtype=np.int16)
        turn = math.radians(item.angle)
        across, down = x_at - item.x, y_at - item.y
        along = across * math.cos(turn) - down * math.sin(turn)
        below = across * math.sin(turn) + down * math.cos(turn)
        half = max(line.height / 2, CELL_HEIGHT / 2 + 0.5)
        inside = (abs(below) <= half) & (along >= line.edges[0]) & (along < line.edges[-1])
        which = np.clip(np.searchsorted(line.edges, along, side="right") - 1, 0, len(codes) - 1)
        which = _keep_narrow(line, which, inside, (turn, stretch))
        kind[inside] = LINE_KINDS.index(item.kind)
        glyph[inside] = codes[which[inside]]
        order[inside] = np.minimum(which[inside], MAX_ORDER - 1)
    return kind, glyph, order


def _keep_narrow(
    line: Line,
    which: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
    frame: tuple[float, tuple[float, float]],
) -> npt.NDArray[np.int64]:
    """Give the cell under a glyph's middle to that glyph where no cell's centre hits it."""
    turn, stretch = frame
    rows, columns = which.shape
    seen = set(np.unique(which[inside]).tolist())
    middles = (line.edges[:-1] + line.edges[1:]) / 2
    for at, middle in enumerate(middles.tolist()):
        if at in seen:
            continue
        x = (line.item.x + middle * math.cos(turn)) * stretch[0]
        y = (line.item.y - middle * math.sin(turn)) * stretch[1]
        row, column = int(y // CELL_HEIGHT), int(x // CELL_WIDTH)
        if 0 <= row < rows and 0 <= column < columns:
            which[row, column] = at
            inside[row, column] = True
    return which


def _patches(
    scene: Scene, width: int, height: int, stretch: tuple[float, float]
) -> tuple[Ints, Ints, Ints]:
    rows, columns = height // CELL_HEIGHT, width // CELL_HEIGHT
    shape = np.zeros((rows, columns), dtype=np.int16)
    colour, centre = np.full_like(shape, -1), np.zeros_like(shape)
    y, x = np.mgrid[0:rows, 0:columns]
    for item in scene.items:
        if not isinstance(item, Shape):
            continue
        middle = (item.x * stretch[0], item.y * stretch[1])
        far = np.maximum(
            abs((x + 0.5) * CELL_HEIGHT - middle[0]), abs((y + 0.5) * CELL_HEIGHT - middle[1])
        )
        at = (
            min(rows - 1, int(middle[1] // CELL_HEIGHT)),
            min(columns - 1, int(middle[0] // CELL_HEIGHT)),
        )
        code = SHAPE_NAMES.index(item.name) + 1
        covered = far < item.size * 0.8
        covered[at] = True
        shape[covered] = code
        colour[covered] = COLOUR_NAMES.index(item.colour)
        centre[at] = code
    return shape, colour, centre
