"""Measures how soon the playground, or the console, is usable here: ``make bench-page``.

    python -m bench.page --json FILE [--loads N] [--page console]

Usable: the page's keys and buttons do what they say (the page's own mark `usable`). Whole: what
they do it with is there too (`whole`); what a person did before waits until then. Both are counted
from the start of the navigation. Each load is a fresh browser context on a loopback: nothing is in
a cache. The stack is idle.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from bench.plan import Raw
from bench.report import machine
from bench.statistics import percentile
from scripts.chromium import FLAGS, chromium_path
from scripts.running_stack import running_stack

_TIMES = """async () => {
    const marked = (name) => new Promise((resolve) => {
        const look = (seen) => seen.getEntriesByName(name).forEach((one) => resolve(one.startTime));
        new PerformanceObserver(look).observe({ type: "mark", buffered: true });
    });
    const usable = await marked("usable"), whole = await marked("whole");
    const [load] = performance.getEntriesByType("navigation");
    const files = performance.getEntriesByType("resource");
    const before = files.filter((file) => file.responseEnd <= usable);
    const bytes = files.reduce((sum, file) => sum + file.encodedBodySize, load.encodedBodySize);
    return [usable, whole, load.responseStart, before.length, files.length, bytes];
}"""


def main() -> None:
    """Measure, print, and write the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.page")
    parser.add_argument("--json", type=Path, required=True, help="file of the raw figures")
    parser.add_argument("--loads", type=int, default=20, help="loads of the page")
    parser.add_argument("--page", choices=("", "console"), default="", help="another page")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="forebay-") as folder,
        running_stack(Path(folder)) as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        loads = [load(browser, stack.url + options.page) for _ in range(options.loads)]
        raw: Raw = {"machine": machine(()), "browser": browser.version, "loads": loads}
        browser.close()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    for moment in ("usable", "whole"):
        times = [one[f"{moment}_ms"] for one in loads]
        median, worst = percentile(times, 0.5), max(times)
        print(f"{moment} after {median:.0f} ms (median of {len(times)}), {worst:.0f} ms at worst")


def load(browser: Browser, url: str) -> dict[str, float]:
    """Open the page in a fresh context; return its times in ms, its files and their bytes."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    usable, whole, first, before, files, size = page.evaluate(_TIMES)
    context.close()
    return {
        "usable_ms": usable,
        "whole_ms": whole,
        "first_byte_ms": first,
        "files_before_usable": before,
        "files": files,
        "bytes": size,
    }


if __name__ == "__main__":
    main()
