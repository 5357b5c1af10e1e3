"""The page's files in a browser under their own policy, without a server: for what needs none."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Route

from forebay.api.page import HEADERS

UI = Path(__file__).resolve().parents[2] / "forebay" / "ui"
ORIGIN = "http://localhost:1"
"""No port that anything listens on; a place that a browser trusts as it trusts https."""


def open_static(browser: Browser) -> Page:
    """Return a blank page of the origin, from which the page's modules can be imported."""
    context: BrowserContext = browser.new_context(locale="en-US")
    context.route(f"{ORIGIN}/**", _serve)
    page = context.new_page()
    page.goto(f"{ORIGIN}/blank")
    return page


def _serve(route: Route) -> None:
    path = urlsplit(route.request.url).path
    if path == "/blank":
        html = "<!doctype html><title>blank</title><main id=main></main>"
        route.fulfill(body=html, headers={**HEADERS, "Content-Type": "text/html"})
        return
    file = UI / path.removeprefix("/ui/")
    if not file.is_file():
        route.fulfill(status=404)
        return
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    route.fulfill(body=file.read_bytes(), headers={**HEADERS, "Content-Type": kind})
