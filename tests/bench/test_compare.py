"""The comparison against real processes that speak the protocol, without a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench import compare, engine_report, report
from bench.engine_plan import QUICK, EnginePlan
from bench.servers import Recipe
from scripts.running_stack import free_port

SERVER = """
import http.server, json, sys, time
STREAMS, FIXED = sys.argv[2] == "stream", sys.argv[3] == "fixed"
class Chat(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(200, b"{}")
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "ignore_eos" in asked and not FIXED:
            return self.answer(400, b'{"error": "ignore_eos is not known"}')
        usage = {"completion_tokens": asked["max_tokens"]}
        if not STREAMS:
            choice = {"message": {"content": "red"}}
            return self.answer(200, json.dumps({"choices": [choice], "usage": usage}).encode())
        events = [{"choices": [{"delta": {"content": "red "}}]}] * 3
        events.append({"choices": [], "usage": usage})
        lines = [f"data: {json.dumps(event)}\\n\\n" for event in events] + ["data: [DONE]\\n\\n"]
        self.answer(200, "".join(lines).encode(), "text/event-stream")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Chat).serve_forever()
"""


def server(name: str, *kinds: str) -> Recipe:
    port = free_port()
    command = (sys.executable, "-c", SERVER, str(port), *kinds)
    return Recipe(name, command, port, streams=kinds[0] == "stream")


@pytest.fixture
def saved() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def plan(tmp_path: Path, saved: list[dict[str, Any]]) -> EnginePlan:
    return EnginePlan(
        peers=("litserve",),
        home=tmp_path,
        work=tmp_path / "work",
        sizes=QUICK,
        round_limit_s=600,
        save=lambda part, raw: saved.append({part: len(raw["rounds"])}),
    )


def test_every_server_gets_every_run_and_the_report_has_the_ratios(
    plan: EnginePlan, saved: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = frozenset({"closed1", "closed8", "burst50"})
    dead = Recipe("vllm", (sys.executable, "-c", "raise SystemExit('no libgomp')"), free_port())
    recipes = [
        (server("forebay", "stream", "free"), every),
        (server("forebay-fp32", "stream", "fixed"), frozenset({"burst50"})),
        (server("litserve", "plain", "fixed"), every),
        (dead, every),
    ]
    monkeypatch.setattr(compare, "_recipes", lambda *_: recipes)
    raw = compare.tiny(plan, "burst_tiny")

    assert raw["servers"].keys() == {"forebay", "forebay-fp32", "litserve"}
    assert "no libgomp" in raw["absent"]["vllm"]
    lengths = {name: about["fixed_length"] for name, about in raw["servers"].items()}
    assert lengths == {"forebay": False, "forebay-fp32": True, "litserve": True}
    (results,) = raw["rounds"]
    assert {name: set(made) for name, made in results.items()} == {
        "forebay": every,
        "forebay-fp32": {"burst50"},
        "litserve": every,
    }
    burst = results["litserve"]["burst50"]
    assert (burst["requests"], burst["failed"], burst["tokens_per_request"]) == (QUICK.burst, 0, 32)
    assert results["forebay"]["burst50"]["tpot_p50_ms"] is not None
    assert saved == [{"burst_tiny": 0}, {"burst_tiny": 1}]

    figures = engine_report.summary({"burst_tiny": raw})
    assert figures["burst50_tiny_vs_litserve"] is not None
    assert figures["burst50_tiny_vs_vllm"] is None
    about = {"command": "", "machine": report.machine(("torch",)), "parts": {"burst_tiny": raw}}
    table = engine_report.table({**figures, **about})
    assert table.count("| burst50 |") == 3


@pytest.mark.parametrize(
    "line",
    [
        '{"kept_as": "int8", "reason": "asked for", "event": "quantization"}',
        "[info     ] quantization                   kept_as=int8 reason='asked for'",
    ],
)
def test_what_the_worker_says_of_its_quantization_is_read(tmp_path: Path, line: str) -> None:
    log = tmp_path / "serve.log"
    log.write_text(f"started\n{line}\nready\n", encoding="utf-8")
    assert compare.said_quantization(log) == "int8"
    log.write_text("started\n", encoding="utf-8")
    assert compare.said_quantization(log) is None
