"""What the routes of alerts work with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forebay.ops.alerts.rules import Rule
from forebay.ops.alerts.silences import Silence
from forebay.ops.alerts.states import Alert
from forebay.ops.alerts.store import AlertStore
from forebay.ops.alerts.telling import Teller


@dataclass(frozen=True, slots=True)
class AlertDesk:
    """Where alerts are kept, by which rules, and who is told."""

    store: AlertStore
    rules: tuple[Rule, ...]
    teller: Teller

    async def overview(self) -> dict[str, Any]:
        """Return all that is to be known now. Raises QueueUnavailableError."""
        now_s = time.time()
        alerts, silences = await self.store.alerts(), await self.store.silences(now_s)
        newest = sorted(alerts.values(), key=lambda one: -one.since_s)
        return {
            "object": "list",
            "data": [self._alert(one, silences, now_s) for one in newest],
            "silences": [one.to_json() for one in silences],
            "channels": list(self.teller.channels),
            "rules": [_rule(one) for one in self.rules],
        }

    def _alert(self, alert: Alert, silences: Sequence[Silence], now_s: float) -> dict[str, Any]:
        rule = next((one for one in self.rules if one.name == alert.rule), None)
        labels = dict(alert.labels)
        return {
            "rule": alert.rule,
            "key": alert.key,
            "labels": labels,
            "state": alert.stage.value,
            "value": alert.value,
            "since": alert.since_s,
            "holds_since": alert.held_s,
            "silenced": any(one.covers(alert, now_s) for one in silences),
            "told": {name: one.at_s for name, one in alert.told.items()},
            "severity": rule.severity.value if rule else None,
            "runbook": rule.runbook if rule else None,
            "text": {one: rule.says(one, alert.value, labels) for one in rule.summary}
            if rule
            else {},
        }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "expr": rule.expr,
        "for_s": rule.for_s,
        "severity": rule.severity.value,
        "threshold": rule.threshold,
        "unit": rule.threshold_unit.value,
        "runbook": rule.runbook,
    }
