"""The rules as they are in force: read from ``rules.toml``, with the settings' thresholds."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

from forebay.ops.alerts.expression import Node, Selector, parse, selectors

LANGUAGES: Final = ("en", "zh")

_PLACE: Final = re.compile(r"\$\{(\w+)\}")
_WORD: Final = re.compile(r"\{(\w+)\}")


class Severity(StrEnum):
    """``CRITICAL``: somebody is to look now. ``WARNING``: today."""

    CRITICAL = "critical"
    WARNING = "warning"


class Unit(StrEnum):
    """How a value is told."""

    RATIO = "ratio"
    SECONDS = "seconds"
    DAYS = "days"
    RATE = "rate"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert. ``expr``: with the thresholds in place; ``node``: the same, read.

    ``threshold``: None where the expression has none. ``for_s``: how long it must hold.
    ``summary``: by language.
    """

    name: str
    expr: str
    node: Node
    unit: Unit
    for_s: float
    severity: Severity
    runbook: str
    summary: Mapping[str, str]
    threshold: float | None = None
    threshold_unit: Unit = Unit.NUMBER

    def says(self, language: str, value: float, labels: Mapping[str, str]) -> str:
        """Return what the alert says of a value."""
        words = {
            **labels,
            "value": told(value, self.unit, language),
            "threshold": self.threshold_told(language),
        }
        return _WORD.sub(lambda found: words.get(found[1], "?"), self.summary[language])

    def threshold_told(self, language: str = "en") -> str:
        """Return the threshold as people read it; empty where there is none."""
        if self.threshold is None:
            return ""
        return told(self.threshold, self.threshold_unit, language)


def told(value: float, unit: Unit, language: str = "en") -> str:
    """Return a value as people read it."""
    if not math.isfinite(value):
        return str(value)
    match unit:
        case Unit.RATIO:
            return f"{value * 100:.4g}%"
        case Unit.SECONDS:
            return f"{value:.3g} s" if language == "en" else f"{value:.3g} 秒"
        case Unit.DAYS:
            return f"{value:.1f} days" if language == "en" else f"{value:.1f} 天"
        case Unit.RATE:
            return f"{value:.3g}"
        case Unit.NUMBER:
            return f"{value:.0f}"


def read_rules(thresholds: Mapping[str, float]) -> tuple[Rule, ...]:
    """Return every rule. Raises KeyError for a threshold that is not among them."""
    text = (files("forebay.ops.alerts") / "rules.toml").read_text(encoding="utf-8")
    return tuple(_rule(one, thresholds) for one in tomllib.loads(text)["rules"])


def wanted_series(rules: tuple[Rule, ...]) -> tuple[Selector, ...]:
    """Return what the rules look at."""
    return tuple(found for rule in rules for found in selectors(rule.node))


def _rule(told_of: dict[str, Any], thresholds: Mapping[str, float]) -> Rule:
    expr = _PLACE.sub(lambda found: f"{thresholds[found[1]]:.12g}", told_of["expr"])
    own = told_of.get("threshold")
    return Rule(
        name=told_of["name"],
        expr=expr,
        node=parse(expr),
        unit=Unit(told_of["unit"]),
        for_s=float(told_of["for_s"]),
        severity=Severity(told_of["severity"]),
        runbook=told_of["runbook"],
        summary={language: told_of["summary"][language] for language in LANGUAGES},
        threshold=None if own is None else thresholds[own],
        threshold_unit=Unit(told_of.get("threshold_unit", told_of["unit"])),
    )
