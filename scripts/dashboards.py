"""Writes what is generated under ``deploy/``: the Grafana dashboards, the Prometheus rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from forebay.config.alerts import AlertSettings
from forebay.ops.alerts.prometheus import prometheus_rules
from forebay.ops.alerts.rules import read_rules
from scripts.dashboard_panels import ROWS, STAT, Panel

DEPLOY: Final = Path(__file__).resolve().parent.parent / "deploy"
RUNBOOK: Final = "https://example.com/forebay/runbook"
"""Where the rules' annotations lead; ``forebay alerts rules`` writes the settings' own address."""

LANGUAGES: Final = {"en": 0, "zh-CN": 1}
_ACROSS, _TALL, _SHORT = 24, 8, 4
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def pages() -> dict[Path, str]:
    """Return each file with its text."""
    rules = read_rules(AlertSettings.model_validate({}).alert_thresholds())
    return {
        DEPLOY / "prometheus" / "forebay-rules.yml": prometheus_rules(rules, RUNBOOK),
        **{
            DEPLOY / "grafana" / f"forebay.{language}.json": _text(_dashboard(at, language))
            for language, at in LANGUAGES.items()
        },
    }


def _text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _dashboard(language: int, name: str) -> dict[str, Any]:
    return {
        "uid": f"forebay-{name.lower()}",
        "title": "Forebay" if language == 0 else "Forebay（中文）",
        "tags": ["forebay"],
        "timezone": "browser",
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_panels(language)),
    }


def _panels(language: int) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in ROWS:
        number += 1
        yield _heading(number, row.title[language], top)
        top += 1
        left = 0
        for panel in row.panels:
            wide, tall = (3, _SHORT) if panel.kind == STAT else (8, _TALL)
            if left + wide > _ACROSS:
                left, top = 0, top + tall
            number += 1
            yield _panel(panel, language, number, {"x": left, "y": top, "w": wide, "h": tall})
            left += wide
        top += _SHORT if row.panels[-1].kind == STAT else _TALL


def _heading(number: int, title: str, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": _ACROSS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place,
            "panels": []}  # fmt: skip


def _panel(panel: Panel, language: int, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    custom = {} if panel.kind == STAT else {
        "thresholdsStyle": {"mode": "off" if panel.limit is None else "line"},
        "showPoints": "never",
    }  # fmt: skip
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title[language],
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": custom,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": one.expr,
             "legendFormat": one.legend or panel.title[language]}
            for at, one in enumerate(panel.queries)
        ],
    }  # fmt: skip
