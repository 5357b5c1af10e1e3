"""Draws the life of a task, from ``forebay/core/lifecycle.py`` into the architecture pages."""

from __future__ import annotations

import re
from pathlib import Path

from forebay.core.lifecycle import TRANSITIONS

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = (DOCS / "architecture.md", DOCS / "architecture.zh-CN.md")
PLACE = re.compile(r"(<!-- lifecycle -->\n).*?(<!-- /lifecycle -->)", re.DOTALL)


def diagram() -> str:
    """Return the state diagram in Mermaid's notation, transitions in the table's order."""
    steps = [
        f"    {before} --> {after}"
        for before, followers in TRANSITIONS.items()
        for after in sorted(followers)
    ]
    ends = [f"    {state} --> [*]" for state in TRANSITIONS if state.final]
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> received", *steps, *ends, "```", ""]
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """Return the pages that hold the diagram, with the diagram of now."""
    return {
        page: PLACE.sub(lambda m: m[1] + diagram() + m[2], page.read_text(encoding="utf-8"))
        for page in PAGES
    }
