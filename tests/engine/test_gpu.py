"""What only a GPU can show: ``scripts/gpu_suite.sh`` runs these where there is one."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from forebay.core.events import Finished
from forebay.core.request import TaskId
from forebay.engine.engine import Engine
from forebay.engine.gpu.inputs import HostStep
from forebay.engine.gpu.triton_ops import TritonOps
from forebay.engine.limits import EngineLimits
from forebay.engine.memory import EngineMemoryError
from forebay.models.loader import load_model
from forebay.models.varlen import Bounds, attend_packed
from tests.checkpoints import TINY_46V, write_checkpoint
from tests.engine.gpu_support import DEVICE, needs_cuda
from tests.reference import Picture, Reference, contents, picture, question

pytestmark = [needs_cuda, pytest.mark.gpu]

GIB = 2**30
LARGER = replace(
    TINY_46V,
    hidden_size=512,
    intermediate_size=1024,
    layers=8,
    heads=8,
    kv_heads=4,
    mrope_section=(4, 6, 6),
    context=32_768,
    stop_tokens=(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), TINY_46V, seed=5)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("larger"), LARGER, seed=6)


def mixed(count: int) -> list[tuple[TaskId, list[Picture], str]]:
    rng = random.Random(7)
    shown = [picture(rng.randint(20, 240), rng.randint(20, 240), seed) for seed in range(8)]
    texts = ("what is the price?", "图中价格是多少?", "the " * 40)
    return [(TaskId(f"t{at}"), rng.sample(shown, at % 3), texts[at % 3]) for at in range(count)]


def answers(engine: Engine, asked: list[tuple[TaskId, list[Picture], str]]) -> dict[TaskId, str]:
    for task_id, pictures, text in asked:
        request = question(text, pictures, max_tokens=20)
        engine.add(engine.prepare(task_id, request, contents(pictures)))
    texts: dict[TaskId, str] = {}
    while engine.has_work:
        for event in engine.step().events:
            if isinstance(event, Finished):
                texts[event.task_id] = event.text
        engine.check_integrity()
    return texts


@pytest.mark.parametrize("budget", [24, 512])
def test_greedy_answers_in_fp32_are_those_of_transformers(folder: Path, budget: int) -> None:
    limits = EngineLimits(max_running=6, token_budget=budget, vision_budget=64, kv_tokens=2048)
    engine = Engine.from_folder(folder, limits=limits, device="cuda", dtype=torch.float32)
    asked = mixed(12)
    reference, decode = Reference(folder), engine._preparer.tokenizer.decode
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    expected = {}
    for task_id, pictures, text in asked:
        messages = question(text, pictures).messages
        tokens = reference.generate(messages, {p.part.sha256: p.image for p in pictures}, 20)
        stopped = tokens[-1] in stops
        expected[task_id] = decode(tokens[:-1] if stopped else tokens)
    assert answers(engine, asked) == expected


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)]
)
def test_logits_are_near_those_of_transformers(
    folder: Path, dtype: torch.dtype, bound: float
) -> None:
    shown = [picture(150, 100, 1), picture(60, 200, 2)]
    request = question("图中价格是多少?", shown, max_tokens=4)
    limits = EngineLimits(max_running=2, kv_tokens=1024)
    engine = Engine.from_folder(folder, limits=limits, device="cuda", dtype=dtype)
    engine.add(engine.prepare(TaskId("a"), request, contents(shown)))
    seen: list[torch.Tensor] = []
    gpu = engine._runner.gpu
    model = gpu.model
    logits = model.logits
    model.logits = lambda hidden: seen.append(logits(hidden)) or seen[-1]
    engine.step()
    pictures = {p.part.sha256: p.image for p in shown}
    expected = Reference(folder).logits(request.messages, pictures)[-1]
    got = seen[0][-1].float().cpu()
    assert (got - expected).norm() / expected.norm() < bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_packed_attention_is_the_textbook_s(dtype: torch.dtype) -> None:
    """Prefill: queries are the last ones of longer contexts, sixteen heads to a KV head."""
    torch.manual_seed(0)
    counts, ends = [7, 300, 65, 2], [7, 420, 1000, 2]
    q = torch.randn(sum(counts), 32, 128, device=DEVICE, dtype=dtype)
    k, v = (torch.randn(sum(ends), 2, 128, device=DEVICE, dtype=dtype) for _ in range(2))
    rows, context = Bounds.of(counts, DEVICE), Bounds.of(ends, DEVICE)
    got = attend_packed(q, k, v, rows, context, causal=True)
    spans = zip(pairwise(rows.host), pairwise(context.host), strict=True)
    for (first, last), (begin, end) in spans:
        keys, values = (t[begin:end].double().repeat_interleave(16, dim=1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[first:last].double(), keys) / 128**0.5
        late = torch.ones_like(scores[0], dtype=torch.bool).triu(end - begin - last + first + 1)
        weights = scores.masked_fill(late, float("-inf")).softmax(dim=-1)
        expected = torch.einsum("hqk,khd->qhd", weights, values)
        off = (got[first:last].double() - expected).norm() / expected.norm()
        assert off < (1e-5 if dtype is torch.float32 else 1e-2)


def test_pictures_of_mixed_sizes_are_encoded_as_each_alone(folder: Path) -> None:
    model = load_model(folder, dtype=torch.bfloat16, device="cuda")
    exact = load_model(folder)
    grids = [(8, 8), (4, 22), (16, 2), (8, 8)]
    torch.manual_seed(1)
    patches = torch.randn(sum(r * c for r, c in grids), 588)
    with torch.inference_mode():
        together = model.visual(patches.cuda(), grids).float().cpu()
        at = 0
        for rows, columns in grids:
            part = patches[at : at + rows * columns]
            alone = exact.visual(part, [(rows, columns)])
            got = together[at // 4 : (at + rows * columns) // 4]
            assert (got - alone).norm() / alone.norm() < 5e-2
            at += rows * columns


def test_a_replayed_graph_says_what_its_launches_say(folder: Path) -> None:
    limits = EngineLimits(max_running=11, kv_tokens=2048)
    engine = Engine.from_folder(folder, limits=limits, device="cuda")
    requests = {}
    for name in map(TaskId, "abcdefghijk"):
        asked = question(name * (1 + ord(name) % 7), max_tokens=30)
        requests[name] = engine.prepare(name, asked, {})
        engine.add(requests[name])
    engine.step()
    gpu = engine._runner.gpu
    assert isinstance(gpu.ops, TritonOps)
    assert set(gpu.static._graphs) == set(gpu.static.sizes) == {1, 2, 4, 8, 11}
    chunks = engine._scheduler.schedule().chunks
    block, scratch = gpu.cache.block_size, gpu.cache.scratch
    with torch.inference_mode():
        for rows in (1, 3, 8, 11):
            size = next(size for size in gpu.static.sizes if size >= rows)
            step = HostStep.of(chunks[:rows], rows, requests, block)
            gpu.static._load(step.padded(size, scratch, block))
            replayed = gpu.static.compute(size, 1)[:rows].clone()
            launched = gpu.static.run(size, 1)[:rows]
            assert replayed.abs().sum() > 0
            assert (replayed - launched).norm() / launched.norm() < 1e-3


def test_the_graphs_of_all_batch_sizes_share_one_workspace(folder: Path) -> None:
    """cuBLAS keeps 32 MiB for every stream on a Hopper: seven streams would not be measured."""
    limits = EngineLimits(max_running=64, kv_tokens=2048)
    engine = Engine.from_folder(folder, limits=limits, device="cuda")
    static = engine._runner.gpu.static
    assert len(static.sizes) == 7
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    static.capture(torch.cuda.Stream())
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - before < 100 * 2**20


@pytest.fixture
def capped() -> Iterator[int]:
    """A card of 2 GiB, as far as torch's allocator goes."""
    cap = 2 * GIB
    gc.collect()  # engines of earlier tests, and cuBLAS's workspace for each one's stream
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(cap / total)
    torch.cuda.reset_peak_memory_stats()
    yield cap
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_small_card_never_runs_out(larger: Path, capped: int) -> None:
    limits = EngineLimits(max_running=32, token_budget=1024)
    engine = Engine.from_folder(larger, limits=limits, device="cuda")
    assert engine.memory is not None
    assert engine.memory.total <= capped
    # the cache is bounded by the memory, not by what the requests could use
    assert engine.memory.kv_tokens < 32 * LARGER.context
    assert engine.memory.kv > capped // 4
    shown = [picture(440, 430, seed) for seed in range(12)]
    for at in range(120):
        text = "the price " * (50 + 37 * at % 900)
        request = question(f"{at} {text}", [shown[at % 12]], max_tokens=200, temperature=1.0)
        engine.add(engine.prepare(TaskId(f"t{at}"), request, contents([shown[at % 12]])))
    finished = 0
    while engine.has_work:
        finished += sum(isinstance(event, Finished) for event in engine.step().events)
    assert finished == 120
    assert torch.cuda.max_memory_reserved() <= capped


def test_a_card_too_small_for_the_settings_is_an_error_at_the_start(
    larger: Path, capped: int
) -> None:
    limits = EngineLimits(max_running=32, context_tokens=32_768, memory_share=0.1)
    with pytest.raises(EngineMemoryError, match="context_tokens"):
        Engine.from_folder(larger, limits=limits, device="cuda")


def test_a_step_that_runs_out_raises(larger: Path, capped: int) -> None:
    """The worker then ends and is replaced: an engine in an unknown state answers no one."""
    limits = EngineLimits(max_running=2, token_budget=16_384, kv_tokens=32_768)
    engine = Engine.from_folder(larger, limits=limits, device="cuda")
    engine.add(engine.prepare(TaskId("a"), question("the " * 16_000, max_tokens=2), {}))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        engine.step()
