"""What is asked, and what must be answered: both follow from a name, so any part can be checked."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

FEWEST_WORDS = 6
MOST_WORDS = 36
_SIDES = 100
_LEAST_SIDE = 30


MOST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its one right answer. ``name``: of the client's attempt, never asked twice.

    ``picture``: a file, where there is one.
    """

    name: str
    prompt: str
    answer: str
    picture: bytes | None = None

    @property
    def data_url(self) -> str:
        assert self.picture is not None
        return f"data:image/jpeg;base64,{base64.b64encode(self.picture).decode()}"


def invented(name: str, number: int, *, with_picture: bool) -> Question:
    """Return a question whose answer follows from its name.

    A picture is known by its size, which storing it anew at another quality does not change.
    """
    size = size_of(number) if with_picture else None
    prompt = f"Say the words of {name}."
    picture = _jpeg(size) if size else None
    return Question(name, prompt, "".join(words(prompt, size)), picture)


def size_of(number: int) -> tuple[int, int]:
    """Return a picture's size that no number within 10,000 shares."""
    return _LEAST_SIDE + number % _SIDES, _LEAST_SIDE + number // _SIDES % _SIDES


def words(prompt: str, size: tuple[int, int] | None = None) -> list[str]:
    """Return the words of the answer, each with its number, so that a gap and a swap both show."""
    seed = hashlib.sha256(f"{prompt}|{size}".encode()).hexdigest()
    count = FEWEST_WORDS + int(seed[:8], 16) % (MOST_WORDS - FEWEST_WORDS + 1)
    seen = f"{size[0]}x{size[1]}" if size else "nothing"
    return [f"{seen}:", *(f" {at}.{seed[at % 60 : at % 60 + 4]}" for at in range(1, count))]


@lru_cache(maxsize=64)
def _jpeg(size: tuple[int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (40, 120, 200)).save(content, "JPEG", quality=85)
    return content.getvalue()
