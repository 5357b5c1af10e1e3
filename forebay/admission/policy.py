"""Admit or shed: one pure decision on cost, load and limits, taken before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forebay.admission.cost import PricedPicture
from forebay.core.errors import (
    ForebayError,
    ImageTooLargeError,
    InvalidRequestError,
    PromptTooLongError,
    QueueFullError,
)
from forebay.core.request import Cost

_MOST_BYTES_A_TOKEN = 16
"""Prose averages three to five bytes a token; text with fewer tokens than this implies is rare
enough to leave to the worker, whose count is exact."""

NOTHING = Cost(visual_tokens=0, text_tokens=0, output_tokens=0)
"""What is known of a request's cost before it is read."""

_SHORTEST_RETRY_S = 1
_LONGEST_RETRY_S = 600
_LONGEST_GUESS_S = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """What the door lets in."""

    context_tokens: int
    max_waiting: int = 10_000
    max_waiting_tokens: int = 50_000_000
    max_images: int = 16
    max_image_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """The queue as last seen. ``oldest_s``: age of the task that has waited longest.

    ``tokens_per_s``: how fast it drains, None while nothing was measured.
    """

    waiting: int = 0
    waiting_tokens: int = 0
    oldest_s: float = 0.0
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Admit:
    """The request may go on to be decoded and enqueued."""


@dataclass(frozen=True, slots=True)
class Shed:
    """The request is refused with ``error``; nothing of it is kept."""

    error: ForebayError


def decide(
    pictures: Sequence[PricedPicture], cost: Cost, load: Load, limits: Limits
) -> Admit | Shed:
    """Return the decision. Faults of the request itself come before the state of the queue."""
    for error in (
        count_fault(len(pictures), limits),
        _picture_fault(pictures, limits),
        _context_fault(cost, limits),
        queue_fault(cost, load, limits),
    ):
        if error is not None:
            return Shed(error)
    return Admit()


def count_fault(pictures: int, limits: Limits) -> ForebayError | None:
    """Return what is wrong with so many pictures; known before one of them is looked at."""
    if pictures <= limits.max_images:
        return None
    return InvalidRequestError(
        f"{pictures} pictures in one request, at most {limits.max_images} are taken"
    )


def _picture_fault(pictures: Sequence[PricedPicture], limits: Limits) -> ForebayError | None:
    for picture in pictures:
        header = picture.header
        if header.pixels > limits.max_image_pixels:
            return ImageTooLargeError(
                f"the picture has {header.width}x{header.height} = {header.pixels} pixels, "
                f"the limit is {limits.max_image_pixels}"
            )
    return None


def _context_fault(cost: Cost, limits: Limits) -> ForebayError | None:
    least_text = math.ceil(cost.text_tokens / _MOST_BYTES_A_TOKEN)
    least = cost.visual_tokens + least_text + cost.output_tokens
    if least <= limits.context_tokens:
        return None
    return PromptTooLongError(
        f"{cost.visual_tokens} visual tokens, at least {least_text} of text and "
        f"{cost.output_tokens} of answer exceed the model's context of {limits.context_tokens}"
    )


def queue_fault(cost: Cost, load: Load, limits: Limits) -> ForebayError | None:
    """Return the refusal of a request that costs so much, if as much waits as may."""
    if load.waiting >= limits.max_waiting:
        return QueueFullError(
            f"{load.waiting} tasks wait, the limit is {limits.max_waiting}",
            retry_after=_retry_after(
                load, (load.waiting + 1 - limits.max_waiting) * load.waiting_tokens / load.waiting
            ),
        )
    if load.waiting and load.waiting_tokens + cost.total > limits.max_waiting_tokens:
        return QueueFullError(
            f"{load.waiting_tokens} tokens of work wait, the limit is {limits.max_waiting_tokens}",
            retry_after=_retry_after(
                load, load.waiting_tokens + cost.total - limits.max_waiting_tokens
            ),
        )
    return None


def _retry_after(load: Load, over: float) -> float:
    """Return seconds until ``over`` tokens of what waits are worked off, as the queue estimates.

    Without a rate: the head of the line has waited about as long as a newcomer would.
    """
    if load.tokens_per_s:
        seconds = over / load.tokens_per_s
    else:
        seconds = min(load.oldest_s, _LONGEST_GUESS_S)
    return min(max(seconds, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
