"""Prometheus' and Alertmanager's own programs, where they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("forebay.*.json"))


def tool(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(tool(name) is None, reason=f"no {name}: `make system` fetches it")


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [tool(name) or "", *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def panels(path: Path) -> list[dict[str, Any]]:
    every = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return [one for one in every if one["type"] != "row"]


def queries(path: Path) -> list[tuple[str, str]]:
    """Return the panel and the text of every query."""
    return [(one["title"], each["expr"]) for one in panels(path) for each in one["targets"]]
