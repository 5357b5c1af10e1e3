"""Series as a scenario has them, judged step by step as the watch does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.config.alerts import AlertSettings
from forebay.ops.alerts.evaluation import evaluate
from forebay.ops.alerts.rules import Rule, read_rules, wanted_series
from forebay.ops.alerts.series import History, Sample
from forebay.ops.alerts.states import Alert, Stage, advance

EVERY_S = 15.0
RULES = read_rules(AlertSettings().alert_thresholds())
BY_NAME = {one.name: one for one in RULES}


@dataclass(frozen=True)
class Given:
    """One series: a value every 15 s; None: it is not told then."""

    metric: str
    labels: Mapping[str, str]
    values: Sequence[float | None]

    @property
    def selector(self) -> str:
        inside = ",".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        return f"{self.metric}{{{inside}}}"


def judged(given: Sequence[Given], rules: Sequence[Rule] = RULES) -> list[dict[str, Alert]]:
    """Return the alerts after each look."""
    history = History(wanted_series(tuple(rules)), EVERY_S)
    alerts: dict[str, Alert] = {}
    looks = []
    for step in range(max(len(one.values) for one in given)):
        now_s = step * EVERY_S
        history.add(now_s, _samples(given, step))
        history.forget(now_s)
        found = {one.name: evaluate(one.node, history, now_s) for one in rules}
        alerts = advance(alerts, rules, found, now_s).alerts
        looks.append(alerts)
    return looks


def firing(alerts: Mapping[str, Alert]) -> list[Alert]:
    return [one for one in alerts.values() if one.stage is Stage.FIRING]


def _samples(given: Sequence[Given], step: int) -> list[Sample]:
    return [
        Sample(one.metric, tuple(sorted(one.labels.items())), value)
        for one in given
        if step < len(one.values) and (value := one.values[step]) is not None
    ]
