"""When a worker that is well is due to be replaced."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from forebay.config import SettingsError, load_settings
from forebay.core.daily_window import DailyWindow
from forebay.worker.care import Bound, CareRules, Cause, Life, cause_to_recycle

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SETTLED = Life(age_s=700, ended=3, memory=150, gpu_memory=90, level=100, gpu_level=80)
NIGHT = DailyWindow.parse("03:00-05:00")


def cause(rules: CareRules, life: Life = SETTLED, now: datetime = NOW) -> Cause | None:
    return cause_to_recycle(rules, life, now, "stack")


@pytest.mark.parametrize(
    ("rules", "due"),
    [
        (CareRules(600), None),
        (CareRules(600, memory=Bound(most_bytes=149)), Cause.MEMORY),
        (CareRules(600, memory=Bound(most_bytes=150)), None),
        (CareRules(600, memory=Bound(growth=0.4)), Cause.MEMORY),
        (CareRules(600, memory=Bound(growth=0.5)), None),
        (CareRules(600, gpu_memory=Bound(growth=0.1)), Cause.GPU_MEMORY),
        (CareRules(600, gpu_memory=Bound(most_bytes=90)), None),
        (CareRules(600, age_s=700), Cause.AGE),
        (CareRules(600, age_s=701), None),
        (CareRules(600, tasks=3), Cause.TASKS),
        (CareRules(600, tasks=4), None),
    ],
)
def test_each_bound_is_a_cause_once_it_is_passed(rules: CareRules, due: Cause | None) -> None:
    assert cause(rules) is due
    assert cause(replace(rules, settle_s=701)) is None, "too young, whatever it takes"


def test_growth_over_an_unknown_level_is_none() -> None:
    rules = CareRules(600, memory=Bound(growth=0.1), gpu_memory=Bound(growth=0.1))
    assert cause(rules, replace(SETTLED, level=0, gpu_level=0)) is None


def test_the_schedule_replaces_who_is_older_than_the_window_and_once_only() -> None:
    rules = CareRules(600, window=NIGHT)
    began = datetime(2026, 11, 20, 3, tzinfo=UTC)
    around = NIGHT.around(began)
    assert around is not None
    turn = NIGHT.turn(around, "stack")
    old = replace(SETTLED, age_s=86_400)
    assert cause(rules, old, turn - timedelta(seconds=1)) is None
    assert cause(rules, old, turn) is Cause.SCHEDULE
    assert cause(rules, old, around[1] - timedelta(seconds=1)) is Cause.SCHEDULE
    assert cause(rules, old, around[1]) is None
    fresh = replace(SETTLED, age_s=1_200)  # it was replaced within this window
    assert cause(rules, fresh, began + timedelta(minutes=100)) is None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"recycle_window": "3-5"}, "recycle_window"),
        ({"recycle_window": "03:00-05:00", "recycle_time_zone": "Nowhere"}, "Nowhere"),
        ({"recycle_age_s": "60"}, "recycle_settle_s"),
        ({"recycle_memory_growth": "0"}, "recycle_memory_growth"),
        ({"recycle_overlap": "maybe"}, "recycle_overlap"),
        ({"recycle_memory_byte": "1"}, "did you mean recycle_memory_bytes"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(told: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(**told)


def test_nothing_is_due_unless_a_setting_asks_for_it() -> None:
    assert not CareRules(load_settings().recycle_settle_s).any
    assert CareRules(600, tasks=1).any
