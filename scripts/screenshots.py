"""Takes the pictures of ``docs/images`` from the real stack: ``make screenshots``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from scripts.chromium import FLAGS, chromium_path
from scripts.console_pictures import take_console
from scripts.running_stack import running_stack

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WAIT_MS = 60_000
COLUMNS = 100
DEMO_LIMIT_S = 600
THEME = TerminalTheme(
    (13, 19, 20),
    (231, 239, 237),
    [
        *((38, 49, 51), (255, 141, 130), (92, 203, 139), (240, 163, 92)),
        *((126, 170, 235), (199, 146, 234), (76, 192, 189), (216, 224, 222)),
    ],
)
"""The page's dark colours, for the terminal's picture."""


def main() -> None:
    """Write every picture."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(prefix="forebay-") as folder:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        with running_stack(Path(folder)) as stack:
            take_page(browser, stack.url, "page", "en-US", "light", (1280, 800))
            take_page(browser, stack.url, "page.zh-CN", "zh-CN", "light", (1280, 800))
            take_page(browser, stack.url, "page-dark", "en-US", "dark", (1280, 800))
            take_page(browser, stack.url, "page-phone.zh-CN", "zh-CN", "dark", (390, 844))
            take_review(browser, stack.url, "page-review", "en-US")
            take_review(browser, stack.url, "page-review.zh-CN", "zh-CN")
        take_console(browser, IMAGES)
        take_demo(browser)
        browser.close()


def take_page(
    browser: Browser, url: str, name: str, locale: str, scheme: str, size: tuple[int, int]
) -> None:
    """Ask a sample's question and take the page with its answer."""
    page = opened(browser, url, locale, scheme, size)
    ask_first_sample(page)
    save(page, name, whole=size[0] < 600)
    page.context.close()


def take_review(browser: Browser, url: str, name: str, locale: str) -> None:
    """Have a sample reviewed and take the page with the model's opinion."""
    page = opened(browser, url, locale, "light", (1280, 800))
    page.click('[data-mode="review"]')
    page.click('#strip button[data-file*="review"]')
    page.wait_for_selector("#cost:visible")
    page.click("#send")
    page.wait_for_selector("#verdict:visible")
    page.mouse.move(0, 0)
    save(page, name, whole=True)
    page.context.close()


def opened(browser: Browser, url: str, locale: str, scheme: str, size: tuple[int, int]) -> Page:
    """Return the page in a context of its own, once the model is ready."""
    context = browser.new_context(
        locale=locale,
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=2,
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector('#status[data-state="ready"]')
    return page


def ask_first_sample(page: Page) -> None:
    """Ask a sample's own question; the first one of whose answer the model is right."""
    samples = page.locator("#strip button")
    samples.first.wait_for()
    for index in range(min(8, samples.count())):
        samples.nth(index).click()
        page.wait_for_selector("#preview:visible")
        page.wait_for_function("document.querySelector('#preview-image').complete")
        page.click("#send")
        page.wait_for_selector('#answer[data-state="done"], #answer[data-state="cut"]')
        if page.locator("#fact-expected").get_attribute("data-right") == "true":
            break
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")


def take_demo(browser: Browser) -> None:
    """Run the burst and take its last screen of terminal."""
    command = [str(Path(sys.executable).parent / "forebay"), "demo", "--once"]
    size = {"COLUMNS": str(COLUMNS), "LINES": "60", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        command, env={**os.environ, **size}, capture_output=True, check=True, timeout=DEMO_LIMIT_S
    )
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    console.print(Text.from_ansi("$ make demo ARGS=--once\n" + last_screen(done.stdout.decode())))
    page = browser.new_page(device_scale_factor=2, viewport={"width": 900, "height": 400})
    page.set_content(console.export_html(theme=THEME, inline_styles=True, code_format=HTML))
    page.locator("main").screenshot(path=IMAGES / "demo.png")
    print("docs/images/demo.png written")


HTML = """<body style="margin:0"><main style="display:inline-block;padding:22px 26px;
background:{background};color:{foreground}"><pre style="margin:0;font:14px/1.45 'DejaVu Sans Mono',
'Noto Sans Mono CJK SC',monospace">{code}</pre></main></body>"""


def last_screen(output: str) -> str:
    """Return what is left on a terminal: of a line that was written over, its last text."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in output.split("\n"))


def save(page: Page, name: str, *, whole: bool) -> None:
    """Write one picture of the page."""
    page.screenshot(path=IMAGES / f"{name}.png", full_page=whole)
    print(f"docs/images/{name}.png written")


if __name__ == "__main__":
    main()
