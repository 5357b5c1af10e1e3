from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench import door_report, report
from bench.door_client import at_once, closed
from bench.door_load import (
    PHOTO_BYTES,
    about,
    open_loop,
    photo,
    predict_request,
    rate_of,
)
from bench.door_plan import QUICK, DoorPlan
from bench.door_predict import FLASK, OURS, predict
from bench.peers import PeerMissingError
from tests.outbound.raw_server import RawServer, ok


def rates(same: float, refused: int = 0) -> dict[str, Any]:
    made = {"accepted_per_s": same, "requests": 20, "statuses": {"200": 20 - refused}}
    return {"same": made, "apart": made, "burst_50": made, "burst": made}


def test_the_summary_takes_each_figure_from_its_part() -> None:
    found = door_report.summary(
        {
            "overload": {"refused": {"p99_ms": 12.5}, "stall": {"longest_ms": 9.0}, "lost": 0},
            "predict": {
                "rounds": [
                    {OURS: rates(500, refused=3), FLASK: rates(100)},
                    {OURS: rates(300), FLASK: rates(100)},
                    {OURS: rates(800), FLASK: rates(200)},
                ]
            },
            "added": {"picture": {"p50_ms": 7.0}, "text": {"p50_ms": 3.0}},
            "pace": {"rounds": [{"road_s": 10.0, "engine_s": 9.5}]},
        }
    )
    assert found == {
        "refusal_p99_ms": 12.5,
        "loop_stall_ms": 9.0,
        "predict_vs_flask": 4.0,  # of 5, 3 and 4
        "added_p50_ms": 7.0,
        "road_vs_engine": 0.95,
        "lost": 0.0,
        "burst_errors": 6.0,
    }


def test_a_part_that_was_not_run_gives_no_figure() -> None:
    assert set(door_report.summary({}).values()) == {None}
    quiet = door_report.summary({"overload": {"refused": None, "stall": {"longest_ms": 1}}})
    assert quiet["refusal_p99_ms"] is None
    machine = report.machine(("redis",))
    whole = {**door_report.summary({}), "machine": machine, "command": "x", "parts": {}}
    assert "| `predict_vs_flask` | - | >= 5 |" in door_report.table(whole)
    parts = {"predict": {"rounds": [{OURS: rates(300, refused=2), FLASK: rates(100)}]}}
    said = door_report.table({**whole, **door_report.summary(parts), "parts": parts})
    assert "| forebay | 300 (2) | 300 (2) | 300 (2) | 300 (2) |" in said


async def test_every_request_is_counted_with_what_it_got() -> None:
    full = b"HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n"
    async with RawServer({"/predict": ok(b"{}")}, other=full).listening() as server:
        url = f"http://127.0.0.1:{server.port}"
        request = predict_request(photo(0), "what")
        good = await asyncio.to_thread(closed, url, [request] * 7, 3)
        refused = await asyncio.to_thread(
            at_once, url, [request.replace(b"/predict", b"/another")] * 2
        )
        some = await open_loop(url, [request], rate=200, seconds=0.2, seed=1)
    gone = await asyncio.to_thread(at_once, url, [request])
    assert server.connections == 9 + len(some)
    assert {one.status for one in some} == {200}
    told = about([*good, *refused, *gone])
    assert told["statuses"] == {"0": 1, "200": 7, "503": 2}
    assert told["accepted_per_s"] == rate_of(good) > 0
    assert rate_of(refused) == 0
    (line, headers, body), *_ = server.asked
    assert line == "POST /predict HTTP/1.1"
    assert int(headers["content-length"]) == len(body) > len(photo(0)) >= PHOTO_BYTES * 0.8


def test_without_flask_the_comparison_says_how_to_get_it(tmp_path: Path) -> None:
    plan = DoorPlan(home=tmp_path, work=tmp_path, sizes=QUICK, save=lambda *_: None)
    with pytest.raises(PeerMissingError, match="make peers ARGS=door"):
        predict(plan, "predict")
