"""Every alert has an entry in the runbook, in both languages, where its message says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.ops.alert_rig import RULES

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENTRIES = [one.runbook for one in RULES]


def test_every_alert_has_an_entry_and_every_entry_an_alert() -> None:
    text = (DOCS / "runbook.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sorted(one.lower().replace(" ", "-") for one in headings) == sorted(ENTRIES)


def test_the_chinese_page_has_the_same_anchors_each_before_its_entry() -> None:
    text = (DOCS / "runbook.zh-CN.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r'^<a id="([a-z-]+)"></a>\n\n## ', text, re.MULTILINE)) == sorted(
        ENTRIES
    )
    assert text.count("\n## ") == len(ENTRIES)


def test_an_entry_says_what_to_do() -> None:
    text = (DOCS / "runbook.md").read_text(encoding="utf-8")
    entries = text.split("\n## ")[1:]
    assert min(len(entry) for entry in entries) > 100
