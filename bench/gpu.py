"""What a GPU does with a model of the true GLM-4.6V-Flash shape: ``python -m bench.gpu``.

    python -m bench.gpu --json FILE [--quantization int8|fp8] [--device cpu --tiny] [--seconds N]

Weights are random and drawn on the device. No HTTP, no queue: the engine alone. ``--tiny`` takes a
model of the tests' size, to try the script itself; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.gpu_load import SIDE, largest_rate, open_loop, pictures, request, sha
from bench.gpu_model import SOURCE, Kept, build_engine, bytes_read_a_token
from forebay.core.request import TaskId
from forebay.engine.engine import Engine
from forebay.engine.kv_cache import bytes_per_token
from forebay.engine.limits import EngineLimits
from forebay.models.quantization import Quantization

LATENCY_BUDGETS = (512, 1024)
"""Token budgets that the search under 300 ms tries: a small step delays others less."""


def main() -> None:
    """Measure, and write the figures as JSON."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    rows = 8 if arguments.tiny else 64
    limits = EngineLimits(max_running=rows, token_budget=256 if arguments.tiny else 2048)
    figures: dict[str, Any] = {"about": about(device), "shape": _shape_source(arguments.tiny)}

    def note(name: str, measured: Any) -> None:
        figures[name] = measured
        print(f"{name}: {json.dumps(measured)}", flush=True)
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    began = time.perf_counter()
    quantization = Quantization(arguments.quantization)
    engine = build_engine(device, limits, tiny=arguments.tiny, quantization=quantization)
    note("ready_s", time.perf_counter() - began)
    note("memory", memory(engine, device))
    bandwidth = copy_bandwidth(device, 2**24 if arguments.tiny else 2**31)
    note("copy_bandwidth_gb_s", bandwidth / 1e9)
    note("decode_1", decode_against_floor(engine, device, bandwidth, arguments.steps))
    for one in (1, rows):
        note(f"decode_{one}_kernels", kernels(engine, device, one))
    note("decode", [decode(engine, n, arguments.steps) for n in batches(rows)])
    note("prefill", [prefill(engine, n) for n in ((64, 200) if arguments.tiny else _PROMPTS)])
    note("vision", [vision(engine, device, *one) for one in _VISION[: 2 if arguments.tiny else 9]])
    threads, seconds = arguments.threads, arguments.seconds
    open_loop(engine, arguments.rate / 4, min(3.0, seconds), threads)  # warm
    note("load", open_loop(engine, arguments.rate, seconds, threads))
    searches, kept = {}, Kept.of(engine)
    for budget in LATENCY_BUDGETS[: 1 if arguments.tiny else None]:
        quick = EngineLimits(max_running=rows, token_budget=budget)
        del engine
        engine = kept.build(quick, device)
        open_loop(engine, arguments.rate / 4, min(3.0, seconds), threads)
        searches[f"token_budget_{budget}"] = largest_rate(
            engine, seconds / 2, threads, 300.0, 1.5 * arguments.rate, arguments.runs
        )
        note("under_300_ms", searches)
    note("memory_at_the_end", memory(engine, device))


_PROMPTS = (512, 2048, 8192)
_VISION = ((1, SIDE), (4, SIDE), (1, 1024))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--device", default="cuda")
    kinds = [one.value for one in Quantization if one is not Quantization.AUTO]
    parser.add_argument("--quantization", choices=kinds, default="none")
    parser.add_argument("--tiny", action="store_true", help="a model of the tests' size")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the load")
    parser.add_argument("--threads", type=int, default=8, help="that decode pictures")
    parser.add_argument("--steps", type=int, default=64, help="timed decode steps")
    parser.add_argument("--runs", type=int, default=5, help="of each search for a rate")
    return parser.parse_args()


def about(device: torch.device) -> dict[str, Any]:
    """Return what a figure must not be read without."""
    found: dict[str, str | int | None] = {
        "command": shlex.join(["python", "-m", "bench.gpu", *sys.argv[1:]]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "device": platform.processor() or platform.machine(),
        "forebay": _version("forebay"),
        **{name: _version(name) for name in ("torch", "triton", "numpy")},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "device_memory": properties.total_memory,
            "processors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return ran.stdout.strip()


def _shape_source(tiny: bool) -> str:
    return "a tiny model of the tests" if tiny else SOURCE


def memory(engine: Engine, device: torch.device) -> dict[str, Any]:
    """Return how the memory was shared out, and the most that torch's allocator has taken."""
    split = None if engine.memory is None else str(engine.memory)
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    return {"split": split, "kv_tokens": engine.free_tokens, "peak_reserved": peak}


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Return bytes a second, read and written, of copying ``size`` bytes on the device."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / timed(device, lambda: target.copy_(source), 10)


def timed(device: torch.device, work: Callable[[], Any], times: int) -> float:
    """Return the median seconds that the device works on ``work``, after two runs to warm up."""
    for _ in range(2):
        work()
    if device.type != "cuda":
        return statistics.median(_wall(work) for _ in range(times))
    taken: list[float] = []
    for _ in range(times):
        start, end = _event(), _event()
        start.record()
        work()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return statistics.median(taken)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _wall(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def batches(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to ``most``."""
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]


def decode_against_floor(
    engine: Engine, device: torch.device, bandwidth: float, steps: int
) -> dict[str, float]:
    """Time the decode step of one sequence against the time to read its bytes once."""
    whole = decode(engine, 1, steps)
    runner = engine._runner  # noqa: SLF001
    text = runner.model.config.text
    context = int(whole["context"])
    kv = context * bytes_per_token(text, runner.cache.keys.dtype)
    read = bytes_read_a_token(runner.model) + kv
    floor = read / bandwidth
    found = {**whole, "bytes": read, "floor_ms": 1e3 * floor}
    found["step_over_floor"] = whole["step_ms"] / found["floor_ms"]
    if runner.gpu is not None:
        static = runner.gpu.static
        with all_decoding(engine, 1, steps), torch.inference_mode():
            alone = timed(device, lambda: static.compute(1, context), steps)
        found |= {"device_ms": 1e3 * alone, "device_over_floor": alone / floor}
    return found


def kernels(engine: Engine, device: torch.device, rows: int) -> list[dict[str, Any]]:
    """Return where the device's time goes in a decode step of ``rows``: the dearest kernels.

    Sampling is part of it. On a CPU they are torch's operations.
    """
    cuda = device.type == "cuda"
    kind = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    runs = 5
    with all_decoding(engine, rows, runs), torch.profiler.profile(activities=[kind]) as profile:
        for _ in range(runs):
            engine.step()
        if cuda:
            torch.cuda.synchronize()
    taken = {
        one.key: (one.self_device_time_total if cuda else one.self_cpu_time_total, one.count)
        for one in profile.key_averages()
    }
    found = [
        {"name": name[:80], "ms_a_step": spent / 1e3 / runs, "calls_a_step": count / runs}
        for name, (spent, count) in taken.items()
    ]
    return sorted(found, key=lambda one: -float(one["ms_a_step"]))[:14]


@contextmanager
def all_decoding(engine: Engine, rows: int, steps: int) -> Iterator[None]:
    """Have ``rows`` sequences that decode together, for ``steps`` steps and more.

    Raises:
        RuntimeError: they never all did.
    """
    names = [TaskId(f"decode-{rows}-{at}") for at in range(rows)]
    for name in names:
        asked = request(name, None, steps + rows + 64, "word " * 60)
        engine.add(engine.prepare(name, asked, {}))
    try:
        stats = engine.step().stats
        while stats.decode_tokens < rows or stats.prefill_tokens:
            if not engine.has_work:
                raise RuntimeError(f"{rows} sequences never decoded in one step")
            stats = engine.step().stats
        yield
    finally:
        for name in names:
            engine.abort(name)


def decode(engine: Engine, rows: int, steps: int) -> dict[str, float]:
    """Time the steps, sampling included, in which ``rows`` sequences decode together."""
    taken: list[float] = []
    with all_decoding(engine, rows, steps):
        for _ in range(steps):
            began = time.perf_counter()
            engine.step()
            taken.append(time.perf_counter() - began)
        context = engine._scheduler.running[0].computed  # noqa: SLF001
    median = statistics.median(taken)
    return {
        "rows": rows,
        "context": context,
        "step_ms": 1e3 * median,
        "step_p99_ms": 1e3 * sorted(taken)[int(0.99 * len(taken))],
        "tokens_per_s": rows / median,
    }


def prefill(engine: Engine, tokens: int) -> dict[str, float]:
    """Time a prompt of about ``tokens`` tokens to its first token; the median of three."""
    taken, length = [], 0
    for at in range(4):
        name = TaskId(f"prefill-{tokens}-{at}")
        prepared = engine.prepare(name, request(name, None, 1, "a " * tokens), {})
        length = len(prepared.token_ids)
        engine.add(prepared)
        began = time.perf_counter()
        while engine.has_work:
            engine.step()
        taken.append(time.perf_counter() - began)
    median = statistics.median(taken[1:])
    return {"tokens": length, "ttft_ms": 1e3 * median, "tokens_per_s": length / median}


@torch.inference_mode()
def vision(engine: Engine, device: torch.device, count: int, side: int) -> dict[str, float]:
    """Time the vision tower over ``count`` pictures, their transfer included."""
    shown = pictures(side)[:count]
    runner = engine._runner  # noqa: SLF001
    images: dict[str, Any] = {}
    began = time.perf_counter()
    for at, content in enumerate(shown):
        name = f"vision-{count}-{side}-{at}"
        images |= engine.prepare(TaskId(name), request(name, side, 1), {sha(name): content}).images
    prepared = (time.perf_counter() - began) / count
    spent = timed(device, lambda: runner.encode(images), 5)
    return {
        "pictures": count,
        "side": side,
        "batch_ms": 1e3 * spent,
        "pictures_per_s": count / spent,
        "prepare_ms_a_picture": 1e3 * prepared,
    }


if __name__ == "__main__":
    main()
