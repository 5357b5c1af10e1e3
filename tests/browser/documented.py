"""Which requests of a page go to the documented API, and which to files of the page's own."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx

OWN_FILES = re.compile(r"/|/console|/ui/[\w./-]+|/samples/[\w.%-]+|/samples\.json")


class DocumentedApi:
    """The paths and methods of a server's OpenAPI description."""

    def __init__(self, url: str) -> None:
        described: dict[str, Any] = httpx.get(f"{url}openapi.json", timeout=60).json()
        self._routes = [
            (method.upper(), re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)))
            for path, methods in described["paths"].items()
            for method in methods
        ]

    def strangers(self, requests: list[tuple[str, str]]) -> set[str]:
        """Return the requests (method, URL) that are neither documented nor for a page's file."""
        return {
            f"{method} {path}"
            for method, url in requests
            if not url.startswith(("blob:", "data:"))
            and not OWN_FILES.fullmatch(path := urlsplit(url).path)
            and not any(name == method and at.fullmatch(path) for name, at in self._routes)
        }
