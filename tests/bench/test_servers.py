from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from bench.servers import Recipe, ServerError, clean_environment, running
from bench.watch import peak_rss, pss, watching
from scripts.running_stack import free_port

SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


def recipe(*arguments: str, port: int = 1) -> Recipe:
    return Recipe("some", (sys.executable, *arguments), port)


def test_a_server_is_ready_when_its_health_says_so_and_its_whole_tree_ends(tmp_path: Path) -> None:
    port = free_port()
    with running(recipe("-c", SERVER, str(port), port=port), tmp_path) as server:
        tree = server.tree()
        assert len(tree) == 2
        assert 0 < server.ready_s < 120
        with watching(server.tree) as use:
            held = pss(tree)
        assert held > 0
        assert use.peak_pss > 0
        assert use.seconds > 0
        assert pss(tree[:1]) <= peak_rss(tree[0].pid)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in tree)


def test_a_server_that_dies_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    dying = recipe("-c", "raise SystemExit('no model here')")
    with pytest.raises(ServerError, match="no model here"), running(dying, tmp_path):
        pass


def test_a_server_is_started_without_the_settings_of_the_one_who_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FOREBAY_MAX_RUNNING", "1")
    monkeypatch.setenv("HOME", "/home/someone")
    environment = clean_environment()
    assert "FOREBAY_MAX_RUNNING" not in environment
    assert environment["HOME"] == "/home/someone"
