"""The benchmark of a GPU runs from end to end, here over a tiny model on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import decode_against_floor, kernels
from bench.gpu_load import percentile
from bench.gpu_model import (
    TRUE_TEXT,
    TRUE_VISION,
    build_engine,
    bytes_read_a_token,
    random_model,
)
from forebay.engine.gpu.ops import TorchOps
from forebay.engine.limits import EngineLimits
from forebay.models.loader import load_model
from forebay.models.quantization import Quantization
from tests.checkpoints import write_checkpoint
from tests.engine.test_gpu_execution import on_the_gpu_s_way

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_script_writes_every_figure(tmp_path: Path, quantization: str) -> None:
    out = tmp_path / "gpu.json"
    few = ["--seconds", "1", "--rate", "4", "--steps", "2", "--runs", "1", "--threads", "1"]
    few += ["--quantization", quantization]
    command = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--tiny", "--json", str(out)]
    subprocess.run([*command, *few], check=True, timeout=240, cwd=ROOT, capture_output=True)
    figures = json.loads(out.read_text())
    about = figures["about"]
    assert "--tiny" in about["command"]
    assert about["torch"]
    assert figures["copy_bandwidth_gb_s"] > 0
    assert figures["decode_1"]["step_over_floor"] > 1
    assert all(figures[f"decode_{rows}_kernels"][0]["ms_a_step"] > 0 for rows in (1, 8))
    assert [one["rows"] for one in figures["decode"]] == [1, 2, 4, 8]
    assert all(one["tokens_per_s"] > 0 for one in figures["decode"] + figures["prefill"])
    assert figures["vision"][0]["pictures_per_s"] > 0
    load = figures["load"]
    assert load["offered_per_s"] > 0
    assert load["latency_p99_ms"] >= load["latency_p50_ms"] >= load["ttft_p50_ms"] > 0
    assert "token_budget_512" in figures["under_300_ms"]
    assert "memory_at_the_end" in figures


@pytest.mark.parametrize("kind", list(Quantization)[1:])
def test_a_random_model_is_what_the_loader_would_make(tmp_path: Path, kind: Quantization) -> None:
    """The same layers, joined the same way: else other launches would be measured."""
    folder = write_checkpoint(tmp_path)
    loaded = load_model(folder, quantization=kind)
    drawn = random_model(loaded.config, torch.device("cpu"), kind)
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in loaded.state_dict().items()}
    assert shapes == {n: (tensor.shape, tensor.dtype) for n, tensor in drawn.state_dict().items()}
    table = drawn.model.language_model.embed_tokens(torch.arange(40))
    assert 0.5 < table.std() * table.shape[1] ** 0.5 < 2
    wide = random_model(loaded.config, torch.device("cpu"))
    if kind is not Quantization.NONE:
        assert bytes_read_a_token(drawn) < 0.6 * bytes_read_a_token(wide)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_the_decode_step_is_timed_over_what_it_really_reads(rows: int) -> None:
    """A graph replays over whatever its buffers hold: ids of another batch size are no tokens."""
    device = torch.device("cpu")
    limits = EngineLimits(max_running=8, token_budget=256, kv_tokens=4096)
    engine = on_the_gpu_s_way(build_engine(device, limits, tiny=True), TorchOps())
    taken = decode_against_floor(engine, device, 1e9, 2)
    assert taken["device_over_floor"] > 0
    assert kernels(engine, device, rows)
    assert not engine.has_work


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
