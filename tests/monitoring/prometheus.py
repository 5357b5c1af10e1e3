"""A real Prometheus with the file of ``deploy/``, at a faster pace and with another target."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.monitoring.tools import DEPLOY, tool

WAIT_S = 120.0
"""For anything that is waited for; far above what it takes, because test machines are shared."""


@dataclass(frozen=True)
class Prometheus:
    http: httpx.Client

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now."""
        answer = self.http.get("/api/v1/query", params={"query": expr})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])

    def rules(self) -> list[dict[str, Any]]:
        groups = self.http.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextmanager
def running(folder: Path, target: str) -> Iterator[Prometheus]:
    """Scrape ``target`` every second."""
    shutil.copytree(DEPLOY / "prometheus", folder)
    config = folder / "prometheus.yml"
    text = config.read_text(encoding="utf-8")
    for old, new in (
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("scrape_timeout: 5s", "scrape_timeout: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ("127.0.0.1:7000", urlsplit(target).netloc),
    ):
        assert old in text
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [tool("prometheus") or "", f"--config.file={config}", f"--web.listen-address={address}",
             f"--storage.tsdb.path={folder / 'data'}"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=30, trust_env=False) as http:
                _await_ready(http, process, folder / "log")
                yield Prometheus(http)
        finally:
            process.terminate()
            process.wait(30)


def _await_ready(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            if http.get("/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))
