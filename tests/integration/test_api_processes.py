"""``forebay serve --api-processes 2``: one port, two processes, each replaced by itself."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.integration.stack import serving


@pytest.mark.slow
def test_two_api_processes_are_one_server_whichever_dies(model: Path, tmp_path: Path) -> None:
    more = ("--api-processes", "2", "--set", f"log_file={tmp_path / 'logs' / 'forebay.log'}")
    with serving(model, tmp_path / "data", *more) as stack:
        first, second = stack.pid_of("api"), stack.pid_of("api-2")
        assert first
        assert second
        assert first != second
        accepted = stack.submit(20)
        stack.kill_child("api-2")
        accepted += stack.submit(20, "and what is this")
        assert first in stack.children()
        stack.await_answers(accepted)

        def told() -> bool:
            text = stack.client.get("/metrics").text
            return len(set(re.findall(r'process="(api[^"]*)"', text))) == 2

        stack.until(told, "the figures of both")
        (light,) = {
            stack.client.get("/healthz").json()["status"] for _ in range(10)
        }  # whoever is asked
        assert light == "alive"
        names = {one.name for one in (tmp_path / "logs").glob("forebay.*.log")}
        assert {"forebay.api.log", "forebay.api-2.log", "forebay.supervisor.log"} <= names
        assert stack.stop(signal.SIGTERM) == 0
        assert stack.living() == []
