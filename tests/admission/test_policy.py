"""Admission is a pure decision on cost, load and limits."""

from __future__ import annotations

import pytest

from forebay.admission.cost import price_picture, price_request
from forebay.admission.header import PictureFormat, PictureHeader
from forebay.admission.policy import Admit, Limits, Load, Shed, decide
from forebay.core.errors import (
    ImageTooLargeError,
    InvalidImageError,
    InvalidRequestError,
    PromptTooLongError,
    QueueFullError,
)
from forebay.core.image_grid import GridRules, visual_tokens
from forebay.core.request import Cost

RULES = GridRules()
LIMITS = Limits(context_tokens=4000, max_waiting=10, max_waiting_tokens=10_000, max_images=2)
COST = Cost(visual_tokens=100, text_tokens=100, output_tokens=100)


def priced(width: int, height: int, side: int = 1024):
    return price_picture(PictureHeader(PictureFormat.PNG, width, height), side, RULES)


def refusal(*args):
    decision = decide(*args)
    assert isinstance(decision, Shed)
    return decision.error


def test_an_ordinary_request_is_admitted():
    assert decide([priced(600, 400)], COST, Load(waiting=9), LIMITS) == Admit()


def test_a_picture_is_priced_at_the_size_it_will_be_stored_with():
    assert priced(4096, 2048).tokens == visual_tokens(512, 1024, RULES)
    assert priced(4096, 2048, side=512).tokens == visual_tokens(256, 512, RULES)


def test_a_turned_picture_costs_the_same():
    assert priced(3000, 1999).tokens == priced(1999, 3000).tokens


def test_text_is_never_priced_below_its_bytes():
    cost = price_request(["图中价格是多少?", "x" * 100], [], 50)
    assert cost.text_tokens >= len("图中价格是多少?".encode()) + 100
    assert cost.output_tokens == 50


def test_a_giant_is_refused_with_the_limit_and_its_own_figure():
    error = refusal([priced(10_000, 9_000)], COST, Load(), LIMITS)
    assert isinstance(error, ImageTooLargeError)
    assert "90000000" in error.message
    assert "50000000" in error.message


def test_a_ribbon_that_the_model_cannot_see_is_refused():
    with pytest.raises(InvalidImageError, match="200 times"):
        priced(5000, 2)


def test_too_many_pictures_are_refused():
    assert isinstance(refusal([priced(9, 9)] * 3, COST, Load(), LIMITS), InvalidRequestError)


def test_what_cannot_fit_the_context_is_refused_at_the_door():
    error = refusal([], Cost(3000, 100, 1100), Load(), LIMITS)
    assert isinstance(error, PromptTooLongError)
    assert "4000" in error.message


def test_text_that_might_fit_is_left_to_the_exact_count_of_the_worker():
    assert decide([], Cost(0, 12_000, 100), Load(), LIMITS) == Admit()


def test_a_full_queue_sheds_and_says_when_to_come_back():
    error = refusal([], COST, Load(waiting=10, oldest_s=7.5), LIMITS)
    assert isinstance(error, QueueFullError)
    assert error.retry_after == 7.5
    assert refusal([], COST, Load(waiting=10, oldest_s=900), LIMITS).retry_after == 60


@pytest.mark.parametrize(
    ("load", "seconds"),
    [
        # of 10 tasks with 300 tokens each, one must go: 300 tokens
        (Load(waiting=10, waiting_tokens=3000, oldest_s=7.5, tokens_per_s=100), 3),
        (Load(waiting=12, waiting_tokens=3600, oldest_s=7.5, tokens_per_s=100), 9),
        # 10,000 are the limit, 9,900 wait, and this one costs 300
        (Load(waiting=5, waiting_tokens=9900, oldest_s=7.5, tokens_per_s=10), 20),
        (Load(waiting=10, waiting_tokens=3000, tokens_per_s=10**6), 1),
        (Load(waiting=10, waiting_tokens=3000, tokens_per_s=0.001), 600),
    ],
)
def test_a_refusal_names_the_time_until_there_is_room_by_the_measured_rate(load, seconds):
    assert refusal([], COST, load, LIMITS).retry_after == pytest.approx(seconds)


def test_waiting_tokens_are_bounded_but_an_empty_queue_takes_any_request_that_fits():
    assert isinstance(refusal([], COST, Load(1, 9_800), LIMITS), QueueFullError)
    assert decide([], COST, Load(0, 9_800), LIMITS) == Admit()


def test_a_fault_of_the_request_is_told_even_when_the_queue_is_full():
    error = refusal([priced(10_000, 9_000)], COST, Load(waiting=10), LIMITS)
    assert isinstance(error, ImageTooLargeError)
