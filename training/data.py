"""Draws training batches without end: pictures of one grid, token rows, dense labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import lru_cache
from multiprocessing.sharedctypes import Synchronized
from random import Random

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from forebay.models.glm4v.positions import rope_positions
from training import tokenizer as tokens
from training.ask import LANGUAGES, ask, compose, talk
from training.draw import draw
from training.labels import Labels, label
from training.pointing import Look, Pointer, Spot, collate, pointers, word_of
from training.scene import Scene, Skill, Turn
from training.scenes import tags
from training.scenes.common import Canvas

# (width, height) in model pixels with how often each is drawn, early and late in training
EARLY = {(112, 112): 4, (140, 112): 3, (112, 140): 1, (168, 112): 1}
STRIPS = {(112, 28): 3, (84, 28): 2, (112, 56): 2, (84, 56): 1}
LATE = {
    (140, 112): 6, (112, 140): 6, (84, 168): 3, (168, 84): 3, (112, 168): 2, (168, 112): 2,
    (112, 112): 2, (140, 140): 1, (196, 84): 1, (84, 196): 1,
}  # fmt: skip
MIX: dict[Skill, float] = {"price": 0.25, "label": 0.29, "colour": 0.14, "count": 0.22,
                           "review": 0.10}  # fmt: skip
IGNORE = -100
PATCH, MERGE = 7, 4  # pixels a patch, patches a side of a visual token
SYSTEM = ("You are a helpful assistant.", "你是一个有用的助手。")


@lru_cache(maxsize=1)
def the_tokenizer() -> Tokenizer:
    """Return the tokenizer, built once a process."""
    return tokens.build()


@lru_cache(maxsize=65536)
def encode(text: str) -> tuple[int, ...]:
    """Return the ids of a text."""
    return tuple(the_tokenizer().encode(text, add_special_tokens=False).ids)


def _tokens_at(text: str, start: int, end: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return which tokens of a text hold some of its characters ``start`` up to ``end``."""
    offsets = the_tokenizer().encode(text, add_special_tokens=False).offsets
    return np.asarray(
        [at for at, (first, last) in enumerate(offsets) if first < end and last > start],
        dtype=np.int64,
    )


@dataclass(slots=True)
class Batch:
    """One step's data. ``rows`` are [B, S]; pictures all have the same grid."""

    pictures: Tensor  # uint8 [P, height, width, 3]
    ids: Tensor  # [B, S]
    targets: Tensor  # [B, S], IGNORE where nothing is to be learned
    positions: Tensor  # [3, B, S]
    skills: list[str]  # of each row's last question
    labels: dict[str, Tensor]  # fields of Labels, stacked over pictures
    look: Look
    spoken: Tensor  # indices of the pictures that rows ask about, in order of rows


@dataclass(slots=True)
class Row:
    """A conversation. ``questions``: where each begins; ``answers``: what predicts each first."""

    ids: list[int]
    targets: list[int]
    questions: list[int]
    answers: list[int]
    pointers: list[Pointer] = field(default_factory=list)


def conversation(
    rng: Random, turns: list[Turn], picture_tokens: int, *, text_first: bool = False
) -> Row:
    """Return a conversation about a picture of so many tokens (or none)."""
    ids = list(encode("[gMASK]<sop>"))
    if rng.random() < 0.06:
        ids += encode("<|system|>\n" + rng.choice(SYSTEM))
    targets = [IGNORE] * len(ids)
    questions, answers = [], []
    picture = list(encode("<|begin_of_image|>") + encode("<|image|>") * picture_tokens)
    picture += encode("<|end_of_image|>")
    for at, turn in enumerate(turns):
        parts = [list(encode(turn.question))]
        if at == 0 and picture_tokens:
            parts.insert(1 if text_first else 0, picture)
        asked = [*encode("<|user|>\n"), *(i for part in parts for i in part)]
        asked += encode("<|assistant|>\n")
        answer = [*encode(turn.answer), *encode("<|user|>")]
        before = 0 if not picture_tokens or at or text_first else len(picture)
        questions.append(len(ids) + len(encode("<|user|>\n")) + before)
        answers.append(len(ids) + len(asked) - 1)
        ids += asked + answer[:-1]
        # the target of a position is the token after it
        targets += [IGNORE] * (len(asked) - 1) + answer
    return Row(ids, targets, questions, answers)


def model_size(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize as the processor does."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


def _scale(rng: Random) -> float:
    draw_ = rng.random()
    if draw_ < 0.5:
        return 1.0
    return rng.uniform(1.0, 1.6) if draw_ < 0.85 else rng.uniform(1.5, 3.0)


def packed_share(progress: float) -> float:
    """Return the share of pictures that are full of text and only teach the vision tower."""
    return float(np.interp(progress, (0.0, 0.4, 0.7), (0.5, 0.3, 0.0)))


def strip_share(progress: float) -> float:
    """Return the share of batches made of narrow strips of text.

    Attention costs the square of a picture's patches, and glyphs are read from close by, so
    strips teach them several times faster than whole pictures.
    """
    return float(np.interp(progress, (0.0, 0.35, 0.7), (0.8, 0.6, 0.1)))


def _questions(skill: Skill | None) -> int:
    """Return how many questions a picture gets; of shapes, each may be about another one.

    The vision tower is most of a step's work, and further questions come almost free.
    """
    return 4 if skill in ("colour", "count") else 1


@dataclass(slots=True)
class Maker:
    """Makes batches from a stream of random numbers."""

    rng: Random
    batch: int

    def make(self, progress: float) -> Batch:
        """Make a batch for a moment of training, 0 at its start and 1 at its end."""
        if self.rng.random() < strip_share(progress):
            return self._strips(max(0.1, 0.9 - 2.5 * progress))
        table = LATE if progress > 0.35 or self.rng.random() < progress else EARLY
        width, height = self.rng.choices(list(table), list(table.values()))[0]
        packed = packed_share(progress)
        ease = max(0.1, 0.9 - 2.5 * progress)
        area = width * height / (112 * 112)
        # Rows are padded to the longest, so most batches hold short questions only.
        tokens_ = width * height // 784
        limit = 72 if self.rng.random() < 0.2 else 26
        pictures, labels, rows, skills, has, spoken = [], [], [], [], [], []
        for _ in range(max(8, round(self.batch / area / 8) * 8)):
            if limit > 26 and self.rng.random() < 0.12:
                rows.append(conversation(self.rng, [talk(self.rng)], 0))
                skills.append("talk")
                has.append(False)
                continue
            # at least one picture is asked about
            pixels, found, scene, skill = self._picture(
                width, height, packed if rows else 0.0, ease
            )
            pictures.append(pixels)
            labels.append(found)
            if skill is None:
                continue
            further = self.rng.choices(scene.asks, k=_questions(skill) - 1)
            for asked in (skill, *further):
                has.append(True)
                spoken.append(len(pictures) - 1)
                row, last = self._row(scene, asked, tokens_, limit, found)
                rows.append(row)
                skills.append(last)
        grid = (height // PATCH, width // PATCH)
        return _collate(pictures, labels, rows, (skills, has, spoken), grid)

    def _strips(self, ease: float) -> Batch:
        """Make a batch of narrow strips of text or a few shapes, most of them asked about."""
        width, height = self.rng.choices(list(STRIPS), list(STRIPS.values()))[0]
        count = max(8, round(self.batch * 112 * 112 / (width * height) / 8) * 8)
        pictures, labels = [], []
        rows, skills, has, spoken = [], [], [], []
        if self.rng.random() < 0.12:  # it is long, and all rows are padded to the longest
            rows.append(conversation(self.rng, [talk(self.rng)], 0))
            skills.append("talk")
            has.append(False)
        for _ in range(count):
            only: Skill | None = "colour" if self.rng.random() < 0.2 else None
            pixels, found, scene, _ = self._picture(width, height, 1.0, ease, only)
            pictures.append(pixels)
            labels.append(found)
            if not scene.asks or len(rows) > 0.7 * count:
                continue
            for _ in range(_questions(only)):
                skill = self.rng.choice(scene.asks)
                row, last = self._row(scene, skill, width * height // 784, 26, found)
                rows.append(row)
                skills.append(last)
                has.append(True)
                spoken.append(len(pictures) - 1)
        grid = (height // PATCH, width // PATCH)
        return _collate(pictures, labels, rows, (skills, has, spoken), grid)

    def _row(
        self, scene: Scene, skill: Skill, picture_tokens: int, limit: int, labels: Labels
    ) -> tuple[Row, Skill]:
        """Ask about a picture in at most ``limit`` tokens beside its own."""
        for _ in range(8):
            turns = self._turns(scene, skill, several=limit > 26)
            first = self.rng.random() < 0.12
            row = conversation(self.rng, turns, picture_tokens, text_first=first)
            if len(row.ids) <= picture_tokens + limit:
                break
        picture = row.ids.index(encode("<|image|>")[0])
        for turn, asked, answer in zip(turns, row.questions, row.answers, strict=True):
            spot = Spot(answer, picture, asked + _tokens_at(turn.question, *word_of(turn)))
            row.pointers += pointers(turn, labels, spot)
        return row, turns[-1].skill

    def _picture(
        self, width: int, height: int, packed: float, ease: float, only: Skill | None = None
    ) -> tuple[np.ndarray, Labels, Scene, Skill | None]:
        rng = self.rng
        scale = _scale(rng)
        bend = (1.0, 1.0) if scale == 1.0 else (rng.uniform(0.94, 1.06), rng.uniform(0.94, 1.06))
        easy = rng.random() < ease
        canvas = Canvas(rng, width * bend[0], height * bend[1], easy=easy)
        skill = only
        if only is not None:
            scene = compose(canvas, only)
        elif rng.random() < packed:
            scene = tags.packed(canvas)
        else:
            skill = rng.choices(list(MIX), list(MIX.values()))[0]
            scene = compose(canvas, skill)
        drawn = draw(scene, scale, rng.randrange(1 << 20))
        pixels = np.asarray(model_size(drawn.picture, (width, height)), dtype=np.uint8)
        return pixels, label(scene, drawn.lines, width, height), scene, skill

    def _turns(self, scene: Scene, skill: Skill, *, several: bool) -> list[Turn]:
        rng = self.rng
        turns = [ask(rng, scene, skill, rng.choice(LANGUAGES))]
        if several and rng.random() < 0.4:
            turns.append(ask(rng, scene, rng.choice(scene.asks), rng.choice(LANGUAGES)))
            rng.shuffle(turns)
        return turns


def _collate(
    pictures: list[np.ndarray],
    labels: list[Labels],
    rows: list[Row],
    of_rows: tuple[list[str], list[bool], list[int]],
    grid: tuple[int, int],
) -> Batch:
    skills, has, spoken = of_rows
    image = encode("<|image|>")[0]
    longest = -(-max(len(row.ids) for row in rows) // 8) * 8
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    targets = np.full_like(ids, IGNORE)
    positions = np.zeros((3, *ids.shape), dtype=np.int64)
    looks = []
    for at, row in enumerate(rows):
        length = len(row.ids)
        ids[at, :length] = row.ids
        targets[at, :length] = row.targets
        grids = [grid] if has[at] else []
        positions[:, at, :length] = rope_positions(row.ids, grids, image, MERGE)[0]
        looks += [(at, one) for one in row.pointers]
    stacked = {
        f.name: torch.from_numpy(np.stack([getattr(x, f.name) for x in labels]).astype(np.int64))
        for f in fields(Labels)
    }
    return Batch(
        torch.from_numpy(np.stack(pictures)), torch.from_numpy(ids), torch.from_numpy(targets),
        torch.from_numpy(positions), skills, stacked, collate(looks, longest),
        torch.tensor(spoken, dtype=torch.long),
    )  # fmt: skip


class Stream(IterableDataset[Batch]):
    """An endless stream of batches; each worker has its own random numbers."""

    def __init__(self, seed: int, batch: int, progress: Synchronized[float]) -> None:
        super().__init__()
        self.seed, self.batch, self.progress = seed, batch, progress

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches."""
        torch.set_num_threads(1)
        worker = get_worker_info()
        number = worker.id if worker else 0
        maker = Maker(Random(self.seed * 64 + number), self.batch)
        while True:
            yield maker.make(self.progress.value)
