from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import door_report, engine_report, queue_report, report

ROOT = Path(__file__).resolve().parents[2]


def made(rate: float, latency: float = 1.0, ttft: float = 0.5, failed: int = 0) -> dict[str, Any]:
    return {
        "failed": failed,
        "requests_per_s": rate,
        "latency_p50_s": latency,
        "ttft_p50_s": ttft,
        "peak_pss": 2**30,
    }


def comparison(checkpoint: str, default: str | None, *names: str) -> dict[str, Any]:
    servers = {name: {"ready_s": 2.0, "quantization": None} for name in names}
    servers["forebay"]["quantization"] = default
    return {"checkpoint": checkpoint, "servers": servers, "rounds": []}


def small() -> dict[str, Any]:
    raw = comparison("small", "int8", "forebay", "forebay-fp32", "vllm", "litserve")
    for speed in (1.0, 0.5, 0.8):
        raw["rounds"].append(
            {
                "forebay": {"burst50": made(2.4 * speed), "closed1": made(1.0, ttft=0.3 / speed)},
                "forebay-fp32": {"burst50": made(1.2 * speed)},
                "vllm": {"burst50": made(0.8 * speed), "closed1": made(1.0, ttft=1.2 / speed)},
                "litserve": {"burst50": made(0.6 * speed), "closed1": made(1.0)},
            }
        )
    return raw


def whole(parts: dict[str, Any]) -> dict[str, Any]:
    about = {
        "command": "python -m bench.engine",
        "machine": report.machine(("torch",)),
        "parts": parts,
    }
    return {**engine_report.summary(parts), **about}


def test_every_key_is_there_even_when_nothing_was_measured() -> None:
    assert engine_report.summary({}) == dict.fromkeys(engine_report.TARGETS)


def test_the_small_checkpoint_gives_its_ratios() -> None:
    found = engine_report.summary({"burst_small": small()})
    assert found["burst50_small_vs_vllm"] == pytest.approx(3.0)
    assert found["burst50_small_fp32_vs_vllm"] == pytest.approx(1.5)
    assert found["burst50_small_vs_litserve"] == pytest.approx(4.0)
    assert found["int8_vs_fp32"] == pytest.approx(2.0)
    assert found["ttft_small_vs_vllm"] == pytest.approx(0.25)


def test_no_gain_of_int8_is_claimed_where_the_default_is_another() -> None:
    raw = small()
    raw["servers"]["forebay"]["quantization"] = "none"
    assert engine_report.summary({"burst_small": raw})["int8_vs_fp32"] is None


def test_a_run_with_failed_requests_gives_no_ratio() -> None:
    raw = small()
    for results in raw["rounds"]:
        results["forebay"]["burst50"]["failed"] = 1
    assert engine_report.summary({"burst_small": raw})["burst50_small_vs_vllm"] is None


def test_latency_is_compared_with_the_best_peer_of_each_round() -> None:
    raw = comparison("tiny", None, "forebay", "vllm", "litserve")
    for ours, vllm, litserve in ((0.4, 1.1, 0.8), (0.6, 1.0, 2.0)):
        raw["rounds"].append(
            {
                "forebay": {"closed1": made(1, ours)},
                "vllm": {"closed1": made(1, vllm)},
                "litserve": {"closed1": made(1, litserve)},
            }
        )
    found = engine_report.summary({"burst_tiny": raw})
    assert found["latency1_tiny_vs_best"] == pytest.approx((0.5 + 0.6) / 2)
    assert found["burst50_tiny_vs_vllm"] is None


def test_the_parts_of_the_engine_alone_give_their_figures() -> None:
    found = engine_report.summary(
        {
            "decode": {"step_ms": {"1": 20.0, "8": 60.0, "16": 96.0}},
            "kv": {"recomputed_s": [30.0, 40.0], "cached_s": [2.0, 2.0]},
            "repeat": {
                "pictures": [
                    {"first_s": 1.0, "other_question_s": 0.1, "same_question_s": 0.05},
                    {"first_s": 2.0, "other_question_s": 0.4, "same_question_s": 0.05},
                ]
            },
            "memory": {"one": {"peak_rss": 1000}, "many": {"peak_rss": 1015}},
        }
    )
    assert found["decode_growth_1_16"] == pytest.approx(0.3)
    assert found["kv_on_off"] == pytest.approx(17.5)
    assert found["repeat_ttft"] == pytest.approx(0.15)
    assert found["memory_growth"] == pytest.approx(0.015)


def test_a_part_that_is_half_done_gives_no_figure() -> None:
    assert engine_report.summary({"memory": {"many": {"peak_rss": 1}}})["memory_growth"] is None
    assert engine_report.summary({"decode": {"step_ms": {"1": 1.0}}})["decode_growth_1_16"] is None


def test_the_file_holds_the_keys_beside_the_raw_runs_and_the_table_is_beside_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "figures.json"
    steps = {"1": {"split_s": {"vision": 3.0, "decode": 1.0}}, "about": {"seconds": 2.0}}
    report.write(path, whole({"burst_small": small(), "steps": steps}), engine_report.table)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert set(engine_report.TARGETS) < set(written)
    assert written["parts"]["burst_small"]["rounds"][1]["vllm"]["burst50"]["failed"] == 0
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "| `burst50_small_vs_vllm` | 3 | >= 2 |" in table
    assert "| `kv_on_off` | - | >= 5 |" in table
    assert "| 1 | 75.0% | 25.0% |" in table
    assert "| burst50 | vllm | 0.64 |" in table
    assert sorted(one.name for one in path.parent.iterdir()) == ["figures.json", "figures.md"]


@pytest.mark.parametrize("page", ["benchmarks.md", "benchmarks.zh-CN.md"])
def test_the_docs_define_every_key_with_its_target(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([<>=]+ [\d.]+|0) \|$", text, re.MULTILINE))
    assert rows == {**engine_report.TARGETS, **queue_report.TARGETS, **door_report.TARGETS}
