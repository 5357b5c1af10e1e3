"""One matrix product in each of our ways: ``python -m bench.products --json FILE``.

Processor time of one thread, medians, the ways in turn: waiting for a core is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from forebay.models.glm4v.layers import Linear, linear_of
from forebay.models.packed_layers import PackedInt8Linear
from forebay.models.quantized_layers import Int8Linear, int8_product, quantize_int8

ROWS = (1, 16, 360, 1296)
SHAPES = ((128, 384), (512, 1536), (768, 5120), (2560, 768))
"""Inputs and outputs: a demo model's, and those of the 150M checkpoint."""


def ways(rows: int, inputs: int, outputs: int) -> dict[str, Callable[[], Tensor]]:
    """Return the ways to multiply ``rows`` rows."""
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    layer: Linear = linear_of(weight, None)
    small = Int8Linear.of(weight, None)
    arranged = PackedInt8Linear(small)
    ready, _ = quantize_int8(x)
    return {
        "fp32 torch": lambda: F.linear(x, weight),
        "fp32 ours": lambda: layer(x),
        "int8 ours": lambda: small(x),
        "int8 arranged": lambda: arranged(x),
        "int8 product alone": lambda: int8_product(ready, small.weight),
    }


def time_ways(found: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each way."""
    spent: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds + 1):
        for name, way in found.items():
            began = time.thread_time()
            way()
            if turn:
                spent[name].append(time.thread_time() - began)
    return {name: round(statistics.median(times) * 1e3, 3) for name, times in spent.items()}


def main() -> None:
    """Time every shape, print a line each, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = []
    with torch.inference_mode():
        for rows in ROWS:
            for inputs, outputs in SHAPES:
                times = time_ways(ways(rows, inputs, outputs), options.rounds)
                result.append({"rows": rows, "inputs": inputs, "outputs": outputs, "ms": times})
                print(rows, inputs, outputs, times)
    if options.json:
        content = {"torch": torch.__version__, "rounds": options.rounds, "products": result}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
