"""Draws the strings that stand on tags and labels."""

from __future__ import annotations

from random import Random

from training.lists import DIGITS, HANZI_WORDS, UPPER, WORDS

# Codes that mix letters and digits leave out I and O, as vehicle numbers do: no reader could
# tell them from 1 and 0.
_CODE_LETTERS = "".join(c for c in UPPER if c not in "IO")
MAX_PRICE = 8
MAX_CODE = 6
_SIGNS = ("¥", "¥", "¥", "$", "$", "€", "", "")


def price(rng: Random, longest: int = MAX_PRICE) -> str:
    """Draw a price of at most ``longest`` characters."""
    while True:
        digits = rng.choice((1, 2, 2, 2, 3, 3, 3, 4, 4))
        whole = str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))
        if digits > 3 and rng.random() < 0.35:
            whole = f"{whole[:-3]},{whole[-3:]}"
        draw = rng.random()
        if draw < 0.5:
            ending = rng.choice(("00", "50", "99", "90", "88", "80", "95"))
            cents = "." + (ending if rng.random() < 0.65 else f"{rng.randint(0, 99):02d}")
        else:
            cents = f".{rng.randint(0, 9)}" if draw < 0.62 else ""
        sign = rng.choice(_SIGNS)
        text = sign + whole + cents
        if len(text) <= min(longest, MAX_PRICE):
            return text


def label(rng: Random, hanzi: bool, longest: int = 8) -> str:
    """Draw a label: a Chinese word, an English word or a random code."""
    if hanzi:
        return rng.choice(HANZI_WORDS)
    while True:
        text = _latin(rng, longest)
        if len(text) <= longest:
            return text


def _latin(rng: Random, longest: int) -> str:
    draw = rng.random()
    if draw < 0.6:
        word = rng.choice(WORDS)
        style = rng.random()
        return word if style < 0.75 else word.title() if style < 0.92 else word.lower()
    length = rng.randint(1, max(1, min(MAX_CODE, longest)))
    if draw < 0.72:
        letters = UPPER if length > 1 else _CODE_LETTERS
        return "".join(rng.choice(letters) for _ in range(length))
    if draw < 0.8 and length > 1:
        return "".join(rng.choice(DIGITS) for _ in range(length))
    return "".join(rng.choice(_CODE_LETTERS + DIGITS) for _ in range(length))
