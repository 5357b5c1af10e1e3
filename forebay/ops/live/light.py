"""The traffic light: one colour for all, and why. Pure: figures, alerts, workers, thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from forebay.core.stillness import Stillness
from forebay.ops.alerts.rules import Rule, Severity
from forebay.ops.alerts.silences import Silence
from forebay.ops.alerts.states import Alert, Stage
from forebay.ops.live.columns import Values
from forebay.ops.live.members import WORKER
from forebay.ops.live.packing import told
from forebay.queue.fleet import Member
from forebay.queue.ports import QueueDepth

STUCK_S: Final = 30.0
"""For so long nothing begins, moves or ends while tasks wait: the queue is stuck."""

OVER_S: Final = 10.0
"""For so long a figure is over its threshold before the light says so: a peak is no news."""

MOST_REASONS: Final = 20
_TROUBLED: Final = ("hung", "drained", "draining", "gone", "waiting")


class Color(StrEnum):
    """``GREEN``: all is well. ``YELLOW``: look today. ``RED``: requests are not answered."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why it is not green. ``subject``: what it is about, such as a figure's key or a worker."""

    code: str
    subject: str = ""
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Light:
    """The light and its reasons, the worst first."""

    color: Color
    reasons: tuple[Reason, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what clients read."""
        reasons = [{**asdict(one), "value": _shown(one.value)} for one in self.reasons]
        return {"color": self.color.value, "reasons": reasons}


def _shown(value: float | None) -> float | None:
    return None if value is None else told(value)


AWAY: Final = Light(Color.RED, (Reason("queue_away"),))
"""The queue's server does not answer: nothing else is known then."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the light is judged by. ``stuck_s``: for how long nothing has moved though tasks wait.

    ``firing``: rules that fire and are not silenced; None as severity: of another release.
    """

    values: Values
    depth: QueueDepth
    workers: Sequence[Mapping[str, Any]]
    firing: Sequence[tuple[str, Severity | None, float]]
    stuck_s: float = 0.0


def judge(seen: Seen, thresholds: Mapping[str, float]) -> Light:
    """Return the light."""
    red, yellow = list(_red(seen)), list(_yellow(seen, thresholds))
    color = Color.RED if red else Color.YELLOW if yellow else Color.GREEN
    return Light(color, tuple((red + yellow)[:MOST_REASONS]))


def _red(seen: Seen) -> Iterator[Reason]:
    if not seen.values.get("workers"):
        yield Reason("no_workers", value=0.0)
    if seen.stuck_s >= STUCK_S:
        yield Reason("stuck", value=round(seen.stuck_s), limit=STUCK_S)
    yield from _alerts("alert_critical", seen, lambda one: one is Severity.CRITICAL)


def _yellow(seen: Seen, thresholds: Mapping[str, float]) -> Iterator[Reason]:
    if seen.depth.drained:
        yield Reason("queue_drained")
    for key, limit in thresholds.items():
        value = seen.values.get(key)
        if value is not None and value > limit:
            yield Reason("over", key, value, limit)
    if shed := seen.values.get("shed_rate"):
        yield Reason("shedding", value=shed)
    for worker in seen.workers:
        if worker["state"] in _TROUBLED:
            yield Reason("worker", str(worker["id"]))
    yield from _alerts("alert_warning", seen, lambda one: one is not Severity.CRITICAL)


def _alerts(code: str, seen: Seen, meant: Any) -> Iterator[Reason]:
    for rule, severity, value in seen.firing:
        if meant(severity):
            yield Reason(code, rule, value)


def firing_of(
    alerts: Iterable[Alert], silences: Sequence[Silence], rules: Iterable[Rule], now_s: float
) -> list[tuple[str, Severity | None, float]]:
    """Return rule, severity and value of what fires and nobody has silenced."""
    severities = {one.name: one.severity for one in rules}
    return [
        (one.rule, severities.get(one.rule), one.value)
        for one in alerts
        if one.stage is Stage.FIRING and not any(each.covers(one, now_s) for each in silences)
    ]


class Progress:
    """For how long nothing has moved though tasks wait that might start."""

    def __init__(self, tick_s: float) -> None:
        self._stillness = Stillness(tick_s)

    def see(self, depth: QueueDepth, members: Iterable[Member], now_s: float) -> float:
        """Return the seconds, 0 where there is nothing to do."""
        waits = depth.waiting > depth.delayed and not depth.drained
        news = sum(one.says["news"] for one in members if one.says["kind"] == WORKER)
        return self._stillness.see((depth.ended, news) if waits else None, now_s)


class Excess:
    """For how long figures have been over their thresholds."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def lasting(
        self, values: Values, thresholds: Mapping[str, float], now_s: float
    ) -> dict[str, float]:
        """Return the thresholds that figures have been over for ``OVER_S``."""
        over = {key for key, limit in thresholds.items() if (values.get(key) or 0.0) > limit}
        self._since = {key: self._since.get(key, now_s) for key in over}
        return {key: thresholds[key] for key in over if now_s - self._since[key] >= OVER_S}
