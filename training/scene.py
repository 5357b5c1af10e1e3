"""What a picture holds, in model pixels, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from training.fonts import Face
from training.lists import Language

Rgb = tuple[int, int, int]
LineKind = Literal["price", "label", "other"]
Skill = Literal["price", "label", "colour", "count", "review", "talk"]


@dataclass(slots=True)
class Text:
    """One line of text, centred at (x, y), turned by ``angle`` degrees."""

    text: str
    face: Face
    em: float
    x: float
    y: float
    rgb: Rgb
    kind: LineKind
    angle: float = 0.0
    spacing: float = 0.0  # extra em between glyphs
    strike: bool = False
    alpha: int = 255
    labelled: bool = True  # does it count in the dense labels


@dataclass(slots=True)
class Shape:
    """One coloured shape; ``size`` is half its side."""

    name: str
    colour: str
    rgb: Rgb
    x: float
    y: float
    size: float
    angle: float = 0.0
    outline: Rgb | None = None


@dataclass(slots=True)
class Polygon:
    """A filled outline that is no named shape: tags, products, signs."""

    points: tuple[tuple[float, float], ...]
    rgb: Rgb
    outline: Rgb | None = None
    radius: float = 0.0  # > 0: the first two points are a rounded rectangle's corners


@dataclass(slots=True)
class Ring:
    """A prohibition sign: a red ring with a bar."""

    x: float
    y: float
    size: float
    rgb: Rgb
    inner: str = ""


@dataclass(slots=True)
class Background:
    """A texture of the pool, tinted between two colours."""

    texture: int
    offset: tuple[float, float]
    first: Rgb
    second: Rgb


@dataclass(slots=True)
class Effects:
    """What happens to the finished picture. Blur is in model pixels, noise in grey levels."""

    blur: float = 0.0
    noise: float = 0.0
    jpeg: int = 0  # quality; 0 keeps the pixels


Item = Text | Shape | Polygon | Ring


@dataclass(slots=True)
class Scene:
    """A picture and everything that may be asked about it."""

    width: float
    height: float
    background: Background
    items: list[Item] = field(default_factory=list)
    effects: Effects = field(default_factory=Effects)
    reason: str | None = None  # review verdict, None where it is not a product picture
    price: str | None = None
    label: str | None = None
    asks: tuple[Skill, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A question with its only right answer. ``about``: the shape that is asked for, if one is."""

    question: str
    answer: str
    skill: Skill
    language: Language
    about: str | None = None
