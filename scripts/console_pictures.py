"""Pictures of the console for the docs: a real stack under a load that comes in bursts."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from forebay.config import PACKAGE_FOLDER
from scripts.chromium import FLAGS, chromium_path
from scripts.running_stack import RunningStack, running_stack

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SAMPLES = PACKAGE_FOLDER / "samples"
WAIT_MS = 60_000
LOAD_MS = 90_000
"""Under load for so long before the first picture: the lines are to tell of it."""
BURST = 90
EVERY_BURSTS = 24
RANGE_S = 60
DESKTOP, PHONE = (1440, 900), (390, 844)
PICTURES: tuple[tuple[str, str, str, str, tuple[int, int]], ...] = (
    ("console", "live", "en-US", "light", DESKTOP),
    ("console.zh-CN", "live", "zh-CN", "light", DESKTOP),
    ("console-dark", "live", "en-US", "dark", DESKTOP),
    ("console-tasks", "tasks", "en-US", "light", DESKTOP),
    ("console-phone.zh-CN", "live", "zh-CN", "dark", PHONE),
)


def main() -> None:
    """Take the console's pictures alone: ``python -m scripts.console_pictures [FOLDER]``."""
    images = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        take_console(browser, images)
        browser.close()


def take_console(browser: Browser, images: Path) -> None:
    """Write every picture of the console into ``images``."""
    with (
        tempfile.TemporaryDirectory(prefix="forebay-") as folder,
        running_stack(Path(folder), sets=["workers=2"]) as stack,
    ):
        key = admin_key(stack)
        with load(stack):
            browser.new_page().wait_for_timeout(LOAD_MS)
            for name, view, locale, scheme, size in PICTURES:
                page = signed_in(browser, stack.url, key, view, locale, scheme, size)
                page.wait_for_timeout(2_500)  # a point or two of the stream
                if view == "tasks":
                    open_a_task(page)
                page.screenshot(path=images / f"{name}.png")
                print(f"docs/images/{name}.png written")
                page.context.close()


def signed_in(
    browser: Browser,
    url: str,
    key: str,
    view: str,
    locale: str,
    scheme: str,
    size: tuple[int, int],
) -> Page:
    """Return a view of the console with its first figures."""
    context = browser.new_context(
        locale=locale,
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=2,
    )
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(f"localStorage.setItem('forebay.console.range', '{RANGE_S}')")
    page = context.new_page()
    page.goto(f"{url}console#/{view}")
    page.fill("#admin-key", key)
    page.press("#admin-key", "Enter")
    page.wait_for_selector('#stream[data-state="live"]', state="attached")
    page.wait_for_selector("main .chart canvas, main tbody tr")
    return page


def open_a_task(page: Page) -> None:
    """Show how a finished task went."""
    page.click('#task-states label:has(input[value="finished"])')
    page.wait_for_selector("tbody tr .link")
    page.locator("tbody tr .link").nth(3).click()
    page.wait_for_selector("#task-pane .timeline")


def admin_key(stack: RunningStack) -> str:
    """Make an administrator's key beside the server."""
    command = [str(Path(sys.executable).parent / "forebay"), "keys", "create", "me"]
    command += ["--scope", "admin", "--data-dir", str(stack.data_dir)]
    environment = {key: val for key, val in os.environ.items() if not key.startswith("FOREBAY_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextmanager
def load(stack: RunningStack) -> Iterator[None]:
    """Have samples' questions asked until the block ends: a trickle, and now and then a burst."""
    ended = threading.Event()
    asked = itertools.cycle(json.loads((SAMPLES / "samples.json").read_text("utf-8")))

    def run() -> None:
        number = 0
        while not ended.wait(0.2 + number * 7 % 12 / 10):
            number += 1
            for _ in range(BURST if number % EVERY_BURSTS == 8 else 1):
                pool.submit(ask, stack.url, next(asked))

    with ThreadPoolExecutor(24) as pool:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def ask(url: str, sample: dict[str, Any]) -> None:
    """Ask a question that no earlier answer will do for."""
    picture = base64.b64encode((SAMPLES / sample["file"]).read_bytes()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}},
        {"type": "text", "text": sample["question"]},
    ]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 64}
    headers = {"Cache-Control": "no-store"}
    httpx.post(f"{url}v1/tasks", json=body, headers=headers, timeout=60).raise_for_status()


if __name__ == "__main__":
    main()
