"""Writes every page, or part of one, that is generated from the code: ``make docs``.

A test compares the same texts with the files, so a change of the code without ``make docs`` fails.
"""

from __future__ import annotations

from pathlib import Path

from scripts import dashboards, errors_doc, lifecycle_doc, metrics_doc, settings_doc


def pages() -> dict[Path, str]:
    """Return each file and the text it should have."""
    parts = (settings_doc, lifecycle_doc, errors_doc, metrics_doc, dashboards)
    return {path: text for part in parts for path, text in part.pages().items()}


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.parent.name}/{path.name} written")


if __name__ == "__main__":
    main()
