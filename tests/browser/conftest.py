"""A real stack with the demo model, and a real Chromium that looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from forebay.config import PACKAGE_FOLDER
from scripts.chromium import FLAGS, chromium_path
from scripts.running_stack import RunningStack, running_stack

WAIT_MS = 60_000
"""How long the page may take to show something; a loaded machine is slow, a hang is a failure."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium for one module.

    Playwright holds an event loop in this thread for as long as it is open: for the whole session
    it would keep every asynchronous test after these from running.
    """
    with sync_playwright() as playwright:
        path = chromium_path()
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium here: `make browser` fetches one, or name it in CHROMIUM")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="session")
def samples() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        (PACKAGE_FOLDER / "samples" / "samples.json").read_text(encoding="utf-8")
    )
    return found


@dataclass
class Visit:
    """A page that is open, and what went wrong or went out while it was."""

    page: Page
    requested: list[str]
    errors: list[str]

    def state(self) -> str | None:
        return self.page.locator("#answer").get_attribute("data-state")

    def wait_for_state(self, *states: str) -> None:
        choices = ", ".join(f'#answer[data-state="{state}"]' for state in states)
        self.page.wait_for_selector(choices, state="attached")

    def outcome(self) -> str | None:
        """Wait for the end of the question, and say which end it was."""
        self.wait_for_state("done", "cut", "stopped", "failed")
        return self.state()

    def ask(self, question: str) -> None:
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    def answer(self) -> str:
        return self.page.locator("#answer-text").inner_text()


@pytest.fixture
def visit(browser: Browser, stack: RunningStack) -> Iterator[Visit]:
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 860})
    yield open_page(context, stack.url)
    context.close()


def open_page(context: BrowserContext, url: str, **options: Any) -> Visit:
    """Open the page and wait until its lamp says that the model is ready."""
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    visit = Visit(page, [], [])
    page.on("request", lambda request: visit.requested.append(request.url))
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on(
        "console", lambda line: visit.errors.append(line.text) if line.type == "error" else None
    )
    page.goto(url, **options)
    page.wait_for_selector('#status[data-state="ready"]')
    return visit
