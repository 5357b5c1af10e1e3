from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.webhooks.delivery import retry_after_s
from forebay.api.webhooks.door import WebhookDoor
from forebay.api.webhooks.schedule import RetrySchedule
from forebay.core.errors import InvalidRequestError
from forebay.outbound.reach import Reach


def test_eight_tries_take_about_a_day() -> None:
    schedule = RetrySchedule()
    pauses = [schedule.pause_s(attempt) for attempt in range(1, 9)]
    assert pauses[-1] is None
    known = [pause for pause in pauses if pause is not None]
    assert len(known) == 7
    assert 4 <= known[0] <= 6
    assert 0.75 < sum(known) / 86_400 < 1.25
    assert known[:5] == sorted(known[:5])


@given(st.integers(1, 30), st.floats(0, 10**9), st.integers(1, 20))
def test_a_receiver_may_lengthen_a_pause_within_bounds_and_not_shorten_it(
    attempt: int, asked_s: float, tries: int
) -> None:
    schedule = RetrySchedule(tries)
    pause = schedule.pause_s(attempt, asked_s)
    if attempt >= tries:
        assert pause is None
        return
    assert pause is not None
    assert min(asked_s, schedule.longest_s) <= pause <= schedule.longest_s * 1.2
    assert pause >= 0.8 * min(schedule.longest_s, schedule.first_s)


def test_pauses_differ_so_that_what_failed_together_comes_apart() -> None:
    assert len({RetrySchedule().pause_s(3) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("", None), ("120", 120.0), (" 7 ", 7.0), ("-5", None), ("soon", None),
     ("1e9", None), ("9" * 400, 999_999_999.0), ("٣", None)],
)  # fmt: skip
def test_retry_after_is_read_as_seconds(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    assert 290 < (retry_after_s(format_datetime(later, usegmt=True)) or 0) <= 300
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_the_door_says_what_is_wrong_with_a_url() -> None:
    door = WebhookDoor(Reach())
    assert door.accept("HTTPS://Hooks.Example:443/a?b=ü#c") == "https://hooks.example/a?b=%C3%BC"
    for url in ("ftp://hooks.example/", "https://u:p@hooks.example/", "https://127.0.0.1/",
                "https://hooks.example:22/", "", 7, None, ["https://hooks.example/"]):  # fmt: skip
        with pytest.raises(InvalidRequestError, match="webhook_url") as error:
            door.accept(url)
        assert error.value.param == "webhook_url"


def test_the_door_says_when_webhooks_are_off() -> None:
    with pytest.raises(InvalidRequestError, match="webhook_secret"):
        WebhookDoor().accept("https://hooks.example/")
