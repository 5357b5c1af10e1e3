"""Silences: alerts that nobody is told of for a while."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from forebay.ops.alerts.states import Alert

MOST_SILENCES: Final = 200
LONGEST_S: Final = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence. ``rule``: empty for every one; ``labels``: those that an alert must have.

    Times in seconds since the epoch. ``by``: who asked for it.
    """

    silence_id: str
    rule: str
    labels: Mapping[str, str]
    until_s: float
    reason: str = ""
    by: str = ""
    made_s: float = field(default=0.0)

    def covers(self, alert: Alert, now_s: float) -> bool:
        """Return whether nobody is to be told of the alert's firing."""
        meant = self.rule in ("", alert.rule)
        has = dict(alert.labels)
        return (
            now_s < self.until_s
            and meant
            and all(has.get(name) == value for name, value in self.labels.items())
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is kept of it, and told."""
        return {**asdict(self), "labels": dict(self.labels)}


def new_silence_id() -> str:
    """Return an id that nobody has."""
    return f"silence-{secrets.token_hex(6)}"
