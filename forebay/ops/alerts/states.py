"""The life of an alert: inactive, pending, firing, resolved. Pure: what was, what is, the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from forebay.ops.alerts.rules import Rule
from forebay.ops.alerts.series import Labels

RESOLVED_KEPT_S: Final = 900.0
"""A resolved alert is kept so long for channels that have not been told of it."""


class Stage(StrEnum):
    """An alert that is inactive is not kept. ``PENDING``: it holds, not yet for long enough."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel was last told of an alert, and when; times in seconds since the epoch."""

    stage: Stage
    at_s: float


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule's word on one thing (``labels``).

    ``since_s``: when it came to its stage; ``held_s``: since when it holds. ``told``: by channel.
    """

    rule: str
    labels: Labels
    stage: Stage
    value: float
    held_s: float
    since_s: float
    told: Mapping[str, Told] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A name for what fires: the rule, and its labels."""
        return alert_key(self.rule, self.labels)

    def wants(self, channel: str, now_s: float, repeat_s: float) -> bool:
        """Return whether a channel is to be told now."""
        last = self.told.get(channel)
        if self.stage is Stage.FIRING:
            again = last is not None and now_s - last.at_s >= repeat_s
            return last is None or last.stage is not Stage.FIRING or again
        # of the end only those are told that know of the beginning
        return self.stage is Stage.RESOLVED and last is not None and last.stage is Stage.FIRING

    def tell(self, channel: str, now_s: float) -> Alert:
        """Return the alert with a channel told."""
        return replace(self, told={**self.told, channel: Told(self.stage, now_s)})

    def to_json(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {
            "rule": self.rule,
            "labels": dict(self.labels),
            "stage": self.stage.value,
            "value": self.value,
            "held_s": self.held_s,
            "since_s": self.since_s,
            "told": {name: [one.stage.value, one.at_s] for name, one in self.told.items()},
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Alert:
        """Read what ``to_json`` wrote."""
        return cls(
            kept["rule"],
            tuple(sorted(kept["labels"].items())),
            Stage(kept["stage"]),
            kept["value"],
            kept["held_s"],
            kept["since_s"],
            {name: Told(Stage(stage), at_s) for name, (stage, at_s) in kept["told"].items()},
        )


def alert_key(rule: str, labels: Labels) -> str:
    """Return the name of what fires: ``GpuBusy{gpu="0",host="a"}``."""
    inside = ",".join(f'{name}="{value}"' for name, value in labels)
    return f"{rule}{{{inside}}}" if inside else rule


@dataclass(frozen=True, slots=True)
class Advance:
    """What became of the alerts: all that are kept, and those whose stage changed."""

    alerts: dict[str, Alert]
    changed: tuple[Alert, ...]


def advance(
    before: Mapping[str, Alert],
    rules: Sequence[Rule],
    found: Mapping[str, Mapping[Labels, float]],
    now_s: float,
) -> Advance:
    """Return the alerts after a look. ``found``: by rule's name, what its expression yields."""
    holds = {
        alert_key(rule.name, labels): (rule, labels, value)
        for rule in rules
        for labels, value in found.get(rule.name, {}).items()
    }
    after: dict[str, Alert] = {}
    for key, (rule, labels, value) in holds.items():
        after[key] = _holding(before.get(key), rule, labels, value, now_s)
    for key, alert in before.items():
        if key not in holds and (ended := _ending(alert, now_s)) is not None:
            after[key] = ended
    return Advance(after, tuple(one for key, one in after.items() if _moved(before.get(key), one)))


def _holding(was: Alert | None, rule: Rule, labels: Labels, value: float, now_s: float) -> Alert:
    begins = was is None or was.stage is Stage.RESOLVED
    held_s = now_s if was is None or begins else was.held_s
    stage = Stage.FIRING if now_s - held_s >= rule.for_s else Stage.PENDING
    if was is not None and was.stage is Stage.FIRING:
        stage = Stage.FIRING  # a longer for_s in a new release does not take it back
    since_s = was.since_s if was is not None and was.stage is stage else now_s
    told = {} if was is None else was.told
    return Alert(rule.name, labels, stage, value, held_s, since_s, told)


def _ending(was: Alert, now_s: float) -> Alert | None:
    if was.stage is Stage.FIRING:
        return replace(was, stage=Stage.RESOLVED, since_s=now_s)
    owed = any(one.stage is Stage.FIRING for one in was.told.values())
    recent = now_s - was.since_s < RESOLVED_KEPT_S
    return was if was.stage is Stage.RESOLVED and owed and recent else None


def _moved(was: Alert | None, now: Alert) -> bool:
    return was is None or was.stage is not now.stage
