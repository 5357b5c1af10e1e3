"""The life of an alert, whatever holds when."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from forebay.ops.alerts.silences import Silence
from forebay.ops.alerts.states import RESOLVED_KEPT_S, Alert, Stage, advance
from tests.ops.alert_rig import BY_NAME

RULE = BY_NAME["CpuBusy"]
HERE = (("host", "a"),)
EVERY_S = 15.0


def played(holds: list[bool], told: bool = False) -> list[Alert | None]:
    """Return the alert after each look; ``told``: a channel hears of every firing."""
    alerts: dict[str, Alert] = {}
    seen: list[Alert | None] = []
    for step, here in enumerate(holds):
        found = {RULE.name: {HERE: 0.9}} if here else {}
        alerts = advance(alerts, [RULE], found, step * EVERY_S).alerts
        if told:
            alerts = {
                key: one.tell("slack", step * EVERY_S) if one.stage is Stage.FIRING else one
                for key, one in alerts.items()
            }
        seen.append(next(iter(alerts.values()), None))
    return seen


@given(st.lists(st.booleans(), max_size=80))
def test_it_fires_only_after_it_held_for_all_of_its_time(holds: list[bool]) -> None:
    looks = round(RULE.for_s / EVERY_S)
    for step, alert in enumerate(played(holds)):
        held = holds[max(0, step - looks) : step + 1]
        fires = len(held) == looks + 1 and all(held)
        assert (alert is not None and alert.stage is Stage.FIRING) is fires


@given(st.lists(st.booleans(), max_size=80))
def test_nothing_is_kept_of_what_nobody_was_told(holds: list[bool]) -> None:
    before = None
    for here, alert in zip(holds, played(holds), strict=True):
        if not here and before is not None:
            fired = before.stage is Stage.FIRING
            assert (alert is not None) is fired  # told as resolved in the history, then gone
        before = alert


def test_an_end_is_kept_until_the_channel_knows_or_the_time_is_over() -> None:
    end_s = 21 * EVERY_S
    alert = played([True] * 21 + [False], told=True)[-1]
    assert alert is not None
    assert alert.stage is Stage.RESOLVED
    assert alert.wants("slack", end_s, 60.0)
    assert not alert.wants("mail", end_s, 60.0)  # it was never told of the beginning
    key = alert.key
    late = advance({key: alert}, [RULE], {}, end_s + RESOLVED_KEPT_S - 1)
    assert late.alerts == {key: alert}
    assert advance({key: alert}, [RULE], {}, end_s + RESOLVED_KEPT_S).alerts == {}
    assert advance({key: alert.tell("slack", 0.0)}, [RULE], {}, 1.0).alerts == {}


def test_a_channel_is_told_once_then_every_repeat_interval() -> None:
    alert = played([True] * 22)[-1]
    assert alert is not None
    assert alert.wants("slack", 0.0, 3600.0)
    told = alert.tell("slack", 1000.0)
    assert not told.wants("slack", 4599.0, 3600.0)
    assert told.wants("slack", 4600.0, 3600.0)
    assert told.wants("mail", 1000.0, 3600.0)
    assert not replace(alert, stage=Stage.PENDING).wants("slack", 0.0, 1.0)


def test_what_fires_again_before_its_end_was_told_is_the_same_to_the_channel() -> None:
    alert = played([True] * 21 + [False] + [True] * 21, told=True)[-1]
    assert alert is not None
    assert alert.stage is Stage.FIRING


@given(
    st.builds(
        Alert,
        st.just("CpuBusy"),
        st.dictionaries(st.text(min_size=1), st.text()).map(lambda d: tuple(sorted(d.items()))),
        st.sampled_from(Stage),
        st.floats(allow_nan=False),
        st.floats(0, 1e10),
        st.floats(0, 1e10),
    )
)
def test_what_is_kept_is_read_back_whole(alert: Alert) -> None:
    told = alert.tell("slack", 5.0)
    assert Alert.from_json(told.to_json()) == told


def test_a_silence_covers_what_it_names_until_its_end() -> None:
    alert = played([True])[-1]
    assert alert is not None
    silence = Silence("s", "CpuBusy", {"host": "a"}, until_s=100.0)
    assert silence.covers(alert, 99.9)
    assert not silence.covers(alert, 100.0)
    assert replace(silence, rule="").covers(alert, 0.0)
    assert not replace(silence, rule="DiskFull").covers(alert, 0.0)
    assert not replace(silence, labels={"host": "b"}).covers(alert, 0.0)
