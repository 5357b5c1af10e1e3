"""The kernels compile to machine code of real GPUs, which needs no GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from forebay.engine.gpu import kernels

capability = int(sys.argv[1])
NORMS = {"x": "T", "branch": "T", "branch_weight": "T", "next_weight": "T", "normed": "T",
         "eps": "fp32"}
WIDTHS = {"WIDTH": 128, "WIDTH_PADDED": 128}
SPLIT = {**WIDTHS, "SPLITS": 32, "TILE": 64}
DECODE = {"q": "T", "keys": "T", "values": "T", "tables": "*i32", "starts": "*i32",
          "lengths": "*i32", "partial": "*fp32", "weights": "*fp32", "scale": "fp32"}
PROGRAMS = (
    (kernels.add_norms, NORMS, {"SIZE": 4096, "PADDED": 4096, "BRANCH": True}),
    (kernels.gated_silu, {"gate_up": "T", "out": "T"}, {"SIZE": 13696, "TILE": 1024}),
    (kernels.rotate_and_store,
     {"qkv": "T", "cos": "*fp32", "sin": "*fp32", "slots": "*i32", "keys": "T", "values": "T"},
     {**WIDTHS, "HEADS": 32, "KV_HEADS": 2, "PAIRS": 32, "PAIRS_PADDED": 32}),
    (kernels.paged_decode, DECODE,
     {**SPLIT, "Q_STRIDE": 36 * 128, "KV_HEADS": 2, "GROUP": 16, "GROUP_PADDED": 16, "BLOCK": 16}),
    (kernels.combine,
     {"partial": "*fp32", "weights": "*fp32", "lengths": "*i32", "out": "T"},
     {**SPLIT, "HEADS": 32}),
    (kernels.one_row_product, {"x": "T", "weight": "T", "bias": "T", "out": "T"},
     {"COLUMNS": 13696, "ROWS": 4096, "BIAS": True, "TILE_ROWS": 8, "TILE_COLUMNS": 512}),
)
for program, types, constants in PROGRAMS:
    names = program.arg_names
    signature = {name: types.get(name, "constexpr").replace("T", "*bf16") for name in names}
    known = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=program, signature=signature, constexprs=known)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(made.asm["cubin"]) > 1000, program
    assert made.metadata.shared <= 99 * 1024, program
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("capability", [80, 90, 120])
def test_every_kernel_compiles_for_a_gpu(capability: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"  # Triton reads the source of what it compiles
    program.write_text(PROGRAM, encoding="utf-8")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)  # that would hand back plain functions
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, str(program), str(capability)]
    subprocess.run(command, check=True, timeout=240, env=environment)
