"""Pieces that every kind of picture shares: colours, backgrounds, fitted text, effects."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from random import Random

from training import fonts
from training.backgrounds import TEXTURES
from training.fonts import Face
from training.lists import COLOURS, HANZI
from training.scene import Background, Effects, LineKind, Rgb, Scene, Text

_HANZI = frozenset(HANZI)
MIN_EM = 19.5  # model pixels: capitals stay about 14 pixels tall or taller
MIN_EM_LONG = 17.0  # lines of eight glyphs or more
MIN_EM_HANZI = 21.0
MAX_EM = 44.0


@dataclass(frozen=True, slots=True)
class Canvas:
    """The size to compose for, the random source and whether fonts are the held-out ones."""

    rng: Random
    width: float
    height: float
    held_out: bool = False
    easy: bool = False  # plain paper, strong ink, no wear: what the model is shown first


def luminance(rgb: Rgb) -> float:
    """Return the perceived brightness, 0 to 255."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def distance(first: Rgb, second: Rgb) -> float:
    """Return the Euclidean distance of two colours."""
    return math.dist(first, second)


def any_rgb(rng: Random) -> Rgb:
    """Draw any colour, pale and dark ones often."""
    value = rng.choice((rng.uniform(0.75, 1), rng.uniform(0, 0.35), rng.random()))
    return _rgb(rng.random(), rng.random() ** 1.5, value)


def _rgb(hue: float, saturation: float, value: float) -> Rgb:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def named_rgb(rng: Random, colour: str) -> Rgb:
    """Draw a shade of a named colour."""
    _, hue, saturation, value = COLOURS[colour]
    return _rgb(rng.uniform(*hue) / 360, rng.uniform(*saturation), rng.uniform(*value))


def background(rng: Random) -> Background:
    """Draw a background: plain, gradient, stripes, noise or a photograph-like texture."""
    first = any_rgb(rng)
    amount = rng.choice((0, rng.randint(5, 30), rng.randint(20, 70)))
    second = (
        max(0, min(255, first[0] + rng.randint(-amount, amount))),
        max(0, min(255, first[1] + rng.randint(-amount, amount))),
        max(0, min(255, first[2] + rng.randint(-amount, amount))),
    )
    return Background(rng.randrange(TEXTURES), (rng.random(), rng.random()), first, second)


def ink(rng: Random, *papers: Rgb, contrast: float = 100) -> Rgb:
    """Draw a text colour whose brightness differs from every paper's."""
    for _ in range(30):
        colour = any_rgb(rng)
        if all(abs(luminance(colour) - luminance(paper)) > contrast for paper in papers):
            return colour
    mean = sum(map(luminance, papers)) / len(papers)
    return (255, 255, 255) if mean < 128 else (0, 0, 0)


def effects(rng: Random) -> Effects:
    """Draw the wear of an ordinary picture."""
    return Effects(
        blur=rng.uniform(0.3, 0.8) if rng.random() < 0.15 else 0.0,
        noise=rng.uniform(2, 10) if rng.random() < 0.25 else 0.0,
        jpeg=rng.randint(40, 95) if rng.random() < 0.5 else 0,
    )


def blank(canvas: Canvas) -> Scene:
    """Return an empty scene with a background and ordinary effects."""
    rng = canvas.rng
    if canvas.easy:
        level = rng.choice((rng.randint(0, 40), rng.randint(215, 255)))
        plain = Background(0, (0.0, 0.0), (level, level, level), (level, level, level))
        return Scene(canvas.width, canvas.height, plain)
    return Scene(canvas.width, canvas.height, background(rng), effects=effects(rng))


def face_for(canvas: Canvas, text: str) -> Face:
    """Draw a font that has every glyph of ``text``: a family first, then one of its faces."""
    cjk = any(c in _HANZI for c in text) or canvas.rng.random() < 0.06
    return canvas.rng.choice(canvas.rng.choice(fonts.families(cjk, canvas.held_out)))


def text_width(face: Face, text: str, spacing: float = 0.0) -> float:
    """Return a line's width in em."""
    return sum(fonts.advance(face, c) for c in text) + spacing * max(0, len(text) - 1)


def smallest_em(text: str) -> float:
    """Return the least em, in model pixels, at which this text is still shown."""
    if any(c in _HANZI for c in text):
        return MIN_EM_HANZI
    return MIN_EM_LONG if len(text) >= 8 else MIN_EM


@dataclass(frozen=True, slots=True)
class Box:
    """Where a line may go, and on what."""

    x: float
    y: float
    width: float
    height: float
    papers: tuple[Rgb, ...]


def fit(canvas: Canvas, text: str, kind: LineKind, box: Box, *, tilt: float = 5.0) -> Text | None:
    """Place a line somewhere in a box, or return None where it fits at no allowed size."""
    rng = canvas.rng
    face = face_for(canvas, text)
    spacing = rng.uniform(0.02, 0.2) if rng.random() < 0.1 else 0.0
    angle = 0.0 if rng.random() < 0.65 else rng.uniform(-tilt, tilt)
    wide = text_width(face, text, spacing) + 0.15
    sine, cosine = abs(math.sin(math.radians(angle))), abs(math.cos(math.radians(angle)))
    # ink is about 0.85 em tall
    per_em_x, per_em_y = wide * cosine + 0.85 * sine, wide * sine + 0.85 * cosine
    largest = min((box.width - 3) / per_em_x, (box.height - 3) / per_em_y)
    least = smallest_em(text)
    if largest < least:
        return None
    em = least * (min(largest, MAX_EM) / least) ** (rng.random() ** 1.2)
    slack_x = max(0.0, box.width - 3 - em * per_em_x) / 2
    slack_y = max(0.0, box.height - 3 - em * per_em_y) / 2
    return Text(
        text, face, em,
        box.x + box.width / 2 + rng.uniform(-slack_x, slack_x),
        box.y + box.height / 2 + rng.uniform(-slack_y, slack_y),
        ink(rng, *box.papers, contrast=175 if canvas.easy else 85), kind, angle, spacing,
    )  # fmt: skip


def papers(scene: Scene) -> tuple[Rgb, ...]:
    """Return the two colours of the background."""
    return (scene.background.first, scene.background.second)
