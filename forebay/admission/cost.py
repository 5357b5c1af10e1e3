"""The price of a request in tokens, from picture headers and the length of its text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.admission.header import PictureHeader, fitted_size
from forebay.core.errors import InvalidImageError
from forebay.core.image_grid import MAX_ASPECT_RATIO, GridRules, visual_tokens
from forebay.core.request import Cost

_TEMPLATE_TOKENS = 16
"""For what the chat template writes around the conversation."""

_MESSAGE_TOKENS = 4
"""For the marks around one message or picture."""


@dataclass(frozen=True, slots=True)
class PricedPicture:
    """A picture that was read by its header alone, and what it takes of the model."""

    header: PictureHeader
    side: int
    """Longest side, in pixels, that it will be stored with."""
    tokens: int


def price_picture(header: PictureHeader, side: int, rules: GridRules) -> PricedPicture:
    """Return the visual tokens of a picture as it will be stored, still undecoded.

    Raises:
        InvalidImageError: one side is over 200 times the other, which the model cannot see.
    """
    width, height = fitted_size(header.width, header.height, side)
    try:
        return PricedPicture(header, side, visual_tokens(height, width, rules))
    except ValueError as error:
        raise InvalidImageError(
            f"the picture is {header.width}x{header.height} pixels; one side may be at most "
            f"{MAX_ASPECT_RATIO} times the other"
        ) from error


def price_request(
    texts: Sequence[str], pictures: Sequence[PricedPicture], output_tokens: int, choices: int = 1
) -> Cost:
    """Return the cost of a request for ``choices`` answers of up to ``output_tokens`` each.

    Text is counted as its UTF-8 bytes: a byte-level tokenizer never makes more tokens than bytes,
    so the queue's budget holds; the true number is known only to the worker.
    """
    marks = _TEMPLATE_TOKENS + _MESSAGE_TOKENS * (len(texts) + len(pictures))
    return Cost(
        visual_tokens=sum(picture.tokens for picture in pictures),
        text_tokens=marks + sum(len(text.encode()) for text in texts),
        output_tokens=output_tokens,
        choices=choices,
    )
