"""The benchmark of a GPU runs from end to end, here over a tiny model on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.gpu_load import percentile
from bench.gpu_model import TRUE_TEXT, TRUE_VISION

ROOT = Path(__file__).parents[2]


def test_the_script_writes_every_figure(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    few = ["--seconds", "1", "--rate", "4", "--steps", "2", "--runs", "1", "--threads", "1"]
    command = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--tiny", "--json", str(out)]
    subprocess.run([*command, *few], check=True, timeout=240, cwd=ROOT, capture_output=True)
    figures = json.loads(out.read_text())
    about = figures["about"]
    assert "--tiny" in about["command"]
    assert about["torch"]
    assert figures["copy_bandwidth_gb_s"] > 0
    assert figures["decode_1"]["step_over_floor"] > 1
    assert [one["rows"] for one in figures["decode"]] == [1, 2, 4, 8]
    assert all(one["tokens_per_s"] > 0 for one in figures["decode"] + figures["prefill"])
    assert figures["vision"][0]["pictures_per_s"] > 0
    load = figures["load"]
    assert load["offered_per_s"] > 0
    assert load["latency_p99_ms"] >= load["latency_p50_ms"] >= load["ttft_p50_ms"] > 0
    assert "token_budget_512" in figures["under_300_ms"]
    assert "memory_at_the_end" in figures


def test_the_true_shape_has_the_parameters_of_a_9b_model() -> None:
    text, vision = TRUE_TEXT, TRUE_VISION
    kv = 2 * text.num_key_value_heads * text.head_dim
    layer = text.hidden_size * (2 * text.hidden_size + kv + 3 * text.intermediate_size)
    decoder = text.num_hidden_layers * layer + 2 * text.vocab_size * text.hidden_size
    block = vision.hidden_size * (4 * vision.hidden_size + 3 * vision.out_hidden_size)
    assert 9.3e9 < decoder < 9.6e9
    assert 0.6e9 < vision.depth * block < 0.9e9
    assert (text.head_dim, vision.head_dim, text.rotary_dim) == (128, 128, 64)


def test_a_percentile_of_nothing_is_nothing() -> None:
    assert percentile([], 99) == 0
    assert percentile([1.0, 3.0], 50) == 2
