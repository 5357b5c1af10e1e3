"""Exact-match accuracy on fresh pictures: ``python -m training.evaluate --per-skill 400``."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image

from forebay.core.image_grid import GridRules, smart_resize
from forebay.models.quantization import Quantization
from training.ask import ask, compose
from training.decode import Reader
from training.draw import draw
from training.lists import Language
from training.questions import TALK
from training.scene import Skill, Turn
from training.scenes.common import Canvas
from training.shape import SIZE

SKILLS: tuple[Skill, ...] = ("price", "label", "colour", "count", "review")
RULES = GridRules(min_pixels=SIZE["shortest_edge"], max_pixels=SIZE["longest_edge"])
# Training draws from other numbers: its seeds are small multiples of 64 plus a worker's number.
FIRST_SEED = 10**9
Accuracy = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Case:
    """A picture, its question and the right answer."""

    picture: Image.Image
    turn: Turn


def raw_size(rng: Random) -> tuple[int, int]:
    """Draw a picture's size: sides of 112 to 672 pixels, one at most twice the other."""
    while True:
        area = math.exp(rng.uniform(math.log(112), math.log(672)))
        aspect = math.exp(rng.uniform(-math.log(2), math.log(2)) / 2)
        width, height = round(area * aspect), round(area / aspect)
        if min(width, height) >= 112 and max(width, height) <= 672:
            return width, height


def case(seed: int, skill: Skill, language: Language, *, held_out: bool = False) -> Case:
    """Draw a fresh case at a natural size. A label is in the script of ``language``."""
    rng = Random(seed)
    width, height = raw_size(rng)
    tall, wide = smart_resize(height, width, RULES)
    scale = math.sqrt(width * height / (wide * tall))
    canvas = Canvas(rng, width / scale, height / scale, held_out)
    scene = compose(canvas, skill, language)
    picture = draw(scene, scale, seed % 9973).picture.resize((width, height))
    return Case(picture, ask(rng, scene, skill, language))


def score(
    reader: Reader, cases: list[Case], mistakes: list[tuple[str, str, str]] | None = None
) -> float:
    """Return the share of exactly right answers."""
    right = 0
    for at in range(0, len(cases), 32):
        part = cases[at : at + 32]
        said = reader.answer([c.picture for c in part], [c.turn.question for c in part], 16)
        for item, text in zip(part, said, strict=True):
            right += text == item.turn.answer
            if mistakes is not None and text != item.turn.answer:
                mistakes.append((item.turn.question, item.turn.answer, text))
    return right / len(cases)


def talk_score(reader: Reader) -> float:
    """Return the share of the small talk that is answered word for word."""
    asked = [(question, answer) for _, answer, group in TALK for question in group]
    said = reader.answer([None] * len(asked), [q for q, _ in asked], 64)
    return sum(text == answer for text, (_, answer) in zip(said, asked, strict=True)) / len(asked)


def evaluate(
    reader: Reader, per_skill: int, seed: int = FIRST_SEED, *, show: bool = False
) -> Accuracy:
    """Return accuracies by font set, skill and language."""
    result: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    languages: tuple[Language, ...] = ("en", "zh")
    for fonts in ("seen fonts", "held-out fonts"):
        for skill in SKILLS:
            if fonts == "held-out fonts" and skill in ("colour", "count"):
                continue  # no text in these pictures
            for language in languages:
                seed += per_skill
                cases = [
                    case(seed + at, skill, language, held_out=fonts != "seen fonts")
                    for at in range(per_skill // 2)
                ]
                wrong: list[tuple[str, str, str]] = []
                result[fonts][skill][language] = score(reader, cases, wrong)
                print(f"{fonts:15} {skill:7} {language} {result[fonts][skill][language]:.3f}")
                if show:
                    print("   ", wrong[:6])
    result["no picture"]["talk"]["en and zh"] = talk_score(reader)
    print(f"talk {result['no picture']['talk']['en and zh']:.3f}")
    return {fonts: dict(skills) for fonts, skills in result.items()}


def mean(accuracy: Accuracy) -> float:
    """Return the mean over font sets, skills and languages."""
    found = [
        one for skills in accuracy.values() for kind in skills.values() for one in kind.values()
    ]
    return sum(found) / len(found)


def main() -> None:
    """Evaluate a checkpoint folder; quantized, beside single precision on the same pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("forebay/demo_model"))
    parser.add_argument("--per-skill", type=int, default=400, help="pictures a skill and font set")
    parser.add_argument("--quantization", choices=("none", "int8", "fp8"), default="none")
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print some mistakes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    began = time.monotonic()
    results: dict[str, Accuracy] = {}
    for kind in dict.fromkeys((Quantization.NONE, Quantization(options.quantization))):
        reader = Reader.load(options.model, kind)
        print(f"quantization {kind.value}")
        results[kind.value] = evaluate(reader, options.per_skill, options.seed, show=options.show)
        print(f"mean {mean(results[kind.value]):.4f}")
    if options.json:
        content = {
            "per_skill": options.per_skill, "seed": options.seed,
            "quantization": options.quantization, "accuracy": results[options.quantization],
            "mean": {kind: round(mean(found), 4) for kind, found in results.items()},
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
