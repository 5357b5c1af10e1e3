"""Composes a picture of a skill and the questions that go with it."""

from __future__ import annotations

from random import Random

from training import questions
from training.lists import COLOURS, REASONS, SHAPES, Language
from training.scene import Scene, Skill, Turn
from training.scenes import review, shapes, tags
from training.scenes.common import Canvas

LANGUAGES: tuple[Language, Language] = ("en", "zh")


def compose(canvas: Canvas, skill: Skill, language: Language | None = None) -> Scene:
    """Compose a picture. ``language`` chooses the script of a label, None draws it."""
    if skill in ("price", "label"):
        return tags.compose(canvas, skill, language if skill == "label" else None)
    if skill in ("colour", "count"):
        return shapes.compose(canvas, skill)
    return review.compose(canvas)


def ask(rng: Random, scene: Scene, skill: Skill, language: Language) -> Turn:
    """Ask one question that the scene answers."""
    english, about = language == "en", None
    if skill == "price":
        question, answer = _from(rng, questions.PRICE, language), scene.price
    elif skill == "label":
        question, answer = _from(rng, questions.LABEL, language), scene.label
    elif skill == "review":
        question = _from(rng, questions.REVIEW, language)
        answer = REASONS[scene.reason or "approve"][0 if english else 1]
    elif skill == "colour":
        shape = rng.choice(shapes.unique(scene))
        about = shape.name
        question = questions.colour_question(rng, language, about)
        answer = shape.colour if english else COLOURS[shape.colour][0]
    else:
        about, answer = _count(rng, scene)
        question = questions.count_question(rng, language, about)
    if answer is None:
        raise ValueError(f"the scene does not answer {skill}")
    return Turn(question, answer, skill, language, about)


def _from(rng: Random, table: dict[Language, tuple[str, ...]], language: Language) -> str:
    return questions.dress(rng, rng.choice(table[language]), language)


def _count(rng: Random, scene: Scene) -> tuple[str | None, str]:
    """Choose what to count: mostly the commonest kind, sometimes all, another or an absent one."""
    counts = shapes.counts(scene)
    draw = rng.random()
    if draw < 0.08:
        return None, str(counts.total())
    if draw < 0.18:
        absent = [name for name in SHAPES if not counts[name]]
        if absent:
            return rng.choice(absent), "0"
    name = rng.choice(list(counts)) if draw < 0.5 else counts.most_common(1)[0][0]
    return name, str(counts[name])


def talk(rng: Random) -> Turn:
    """Say something without a picture."""
    language, answer, group = rng.choice(questions.TALK)
    return Turn(questions.dress(rng, rng.choice(group), language), answer, "talk", language)
