"""What lies under ``deploy/``: Prometheus and Alertmanager take it, the dashboards fit the code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from forebay.ops.alerts.rules import Severity
from forebay.ops.metric_book import facts
from tests.monitoring.tools import DASHBOARDS, DEPLOY, needs, panels, queries, run
from tests.ops.alert_rig import RULES

METRIC = re.compile(r"\b((?:forebay_|vllm:|gen_ai_|process_)[a-z0-9_]+)")
PARTS = ("_bucket", "_sum", "_count")


def shown(path: Path) -> set[str]:
    """Return the metrics that a dashboard looks at."""
    found = {name for _, expr in queries(path) for name in METRIC.findall(expr)}
    return {next((n[: -len(p)] for p in PARTS if n.endswith(p)), n) for n in found}


@needs("promtool")
def test_prometheus_takes_its_file(tmp_path: Path) -> None:
    folder = shutil.copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    told = run("promtool", "check", "config", str(folder / "prometheus.yml"))
    assert f"{len(RULES)} rules found" in told


@needs("amtool")
def test_alertmanager_takes_its_file_and_sends_each_severity_to_somebody() -> None:
    file = str(DEPLOY / "alertmanager" / "alertmanager.yml")
    run("amtool", "check-config", file)
    for severity, receiver in ((Severity.CRITICAL, "on-call"), (Severity.WARNING, "team")):
        told = run("amtool", "config", "routes", "test", f"--config.file={file}",
                   f"severity={severity}")  # fmt: skip
        assert told.strip() == receiver


def test_alertmanagers_file_names_only_rules_that_there_are() -> None:
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    found = re.findall(r'alertname=~?"([\w|]+)"', text)
    named = {one for names in found for one in names.split("|")}
    assert named
    assert named <= {one.name for one in RULES}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda one: one.name)
def test_a_dashboard_looks_only_at_metrics_that_there_are(path: Path) -> None:
    assert shown(path) - set(facts()) == set()


def test_the_dashboards_look_at_every_part_of_the_service() -> None:
    """What no panel shows is another name of what is shown, or a part of it."""
    seen = {facts()[one].group for one in shown(DASHBOARDS[0])}
    assert seen == {one.group for one in facts().values()}


def test_both_languages_show_the_same_under_titles_of_their_own() -> None:
    english, chinese = (panels(path) for path in DASHBOARDS)
    assert [one["gridPos"] for one in english] == [one["gridPos"] for one in chinese]
    assert queries_of(english) == queries_of(chinese)
    assert not [one["title"] for one in english if re.search(r"[一-鿿]", one["title"])]
    untranslated = [one["title"] for one in chinese if not re.search(r"[一-鿿]", one["title"])]
    assert set(untranslated) <= {"GPU", "Webhook"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda one: one.name)
def test_no_panel_lies_on_another(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for one in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        place = one["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, one["title"]
        taken |= cells


def queries_of(found: list[dict[str, object]]) -> list[list[str]]:
    return [[each["expr"] for each in one["targets"]] for one in found]  # type: ignore[attr-defined]
