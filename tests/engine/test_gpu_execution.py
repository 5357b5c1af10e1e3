"""The engine's way through a GPU gives the answers of its way through a CPU.

All of it but the capture of graphs runs on any machine: over the kernels' twins in torch, and,
where Triton is installed, over the kernels themselves through its interpreter.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.core.events import Finished
from forebay.core.request import TaskId
from forebay.engine.device import default_dtype
from forebay.engine.engine import Engine
from forebay.engine.gpu import execution
from forebay.engine.gpu.attention import plan_prefills
from forebay.engine.gpu.execution import GpuExecution, default_ops
from forebay.engine.gpu.inputs import ALIGNMENT, flat, upload
from forebay.engine.gpu.ops import GATHERED_TOKENS, Ops, TorchOps
from forebay.engine.gpu.static_decode import batch_sizes
from forebay.engine.gpu.triton_ops import TritonOps
from forebay.engine.limits import EngineLimits
from forebay.engine.sequence import Chunk, Sequence
from forebay.models.quantization import Quantization
from tests.checkpoints import TINY_46V, write_checkpoint
from tests.engine.gpu_support import DEVICE, HAS_CUDA, triton_ops
from tests.reference import contents, picture, question

LIMITS = {
    "roomy": EngineLimits(kv_tokens=8192),
    "small chunks": EngineLimits(token_budget=16, vision_budget=16, max_running=5, kv_block=8),
    "few blocks": EngineLimits(
        token_budget=48, max_running=8, kv_tokens=336, kv_block=4, encoder_cache_bytes=0
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), TINY_46V, seed=5)


def on_the_gpu_s_way(engine: Engine, ops: Ops) -> Engine:
    """Have an engine on the CPU run as it would on a GPU."""
    runner = engine._runner
    gpu = GpuExecution.build(
        runner.model,
        runner.cache,
        ops,
        most_rows=engine._limits.max_running,
        longest=engine.longest,
    )
    engine._runner = replace(runner, gpu=gpu)
    return engine


def answers(engine: Engine, count: int, tokens: int) -> dict[TaskId, str]:
    """Texts of questions about pictures of many sizes, which come while others run."""
    rng = random.Random(3)
    shown = [picture(rng.randint(20, 200), rng.randint(20, 200), seed) for seed in range(6)]
    waiting = []
    for at in range(count):
        pictures = rng.sample(shown, at % 3)
        asked = question("what is the price? " * (1 + at % 4), pictures, max_tokens=tokens - at % 4)
        waiting.append(engine.prepare(TaskId(f"t{at}"), asked, contents(pictures)))
    texts: dict[TaskId, str] = {}
    for step in range(3000):
        if waiting and step % 2 == 0:
            engine.add(waiting.pop(0))
        for event in engine.step().events:
            if isinstance(event, Finished):
                texts[event.task_id] = event.text
        engine.check_integrity()
        if not engine.has_work and not waiting:
            return texts
    raise AssertionError("the engine did not come to an end")


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
def test_answers_are_those_of_the_ordinary_path(folder: Path, limits: EngineLimits) -> None:
    plain = answers(Engine.from_folder(folder, limits=limits, device="cpu"), 10, 14)
    engine = Engine.from_folder(folder, limits=limits, device="cpu")
    assert answers(on_the_gpu_s_way(engine, TorchOps()), 10, 14) == plain


def test_answers_with_8_bit_weights_are_those_of_the_ordinary_path(folder: Path) -> None:
    def engine() -> Engine:
        return Engine.from_folder(
            folder, limits=LIMITS["roomy"], device="cpu", quantization=Quantization.INT8
        )

    ordinary = engine()
    ordinary._runner.model.narrow = False  # a GPU's attention is of full precision
    plain = answers(ordinary, 6, 10)
    assert answers(on_the_gpu_s_way(engine(), TorchOps()), 6, 10) == plain


def test_answers_over_the_interpreted_kernels_are_the_same(folder: Path) -> None:
    if HAS_CUDA:
        pytest.skip("the kernels run on the GPU itself: see test_gpu.py")
    limits = EngineLimits(token_budget=40, max_running=3, kv_tokens=512, kv_block=8)
    ops = triton_ops()
    plain = answers(Engine.from_folder(folder, limits=limits, device="cpu"), 3, 4)
    engine = Engine.from_folder(folder, limits=limits, device="cpu")
    assert answers(on_the_gpu_s_way(engine, ops), 3, 4) == plain


def test_every_step_of_decoding_alone_goes_through_the_static_buffers(folder: Path) -> None:
    """Else the test above would say nothing of padding rows."""
    engine = on_the_gpu_s_way(
        Engine.from_folder(folder, limits=LIMITS["small chunks"], device="cpu"), TorchOps()
    )
    static = engine._runner.gpu.static
    loaded: list[int] = []
    run = static.run
    static.run = lambda size, longest: loaded.append(size) or run(size, longest)
    for name in ("a", "b", "c"):
        engine.add(engine.prepare(TaskId(name), question("what?", max_tokens=9), {}))
    decoding_alone = 0
    while engine.has_work:
        stats = engine.step().stats
        decoding_alone += stats.decode_tokens > 0 and stats.prefill_tokens == 0
    assert len(loaded) == decoding_alone >= 8
    assert 4 in loaded  # three rows, one of padding


def test_padding_rows_leave_the_logits_and_the_cache_alone(folder: Path) -> None:
    engine = on_the_gpu_s_way(
        Engine.from_folder(folder, limits=EngineLimits(kv_tokens=512), device="cpu"), TorchOps()
    )
    requests = {
        task_id: engine.prepare(task_id, question(task_id, max_tokens=9), {})
        for task_id in map(TaskId, ("a", "b", "c"))
    }
    for request in requests.values():
        engine.add(request)
    engine.step()
    plan = engine._scheduler.schedule()
    assert plan.decode_tokens == 3
    runner = engine._runner
    with torch.inference_mode():
        padded = runner.gpu.static.forward(plan.chunks, requests).clone()
        before = runner.cache.keys[:, :-1].clone()
        alone = torch.cat(
            [runner.gpu.static.forward([chunk], requests).clone() for chunk in plan.chunks]
        )
        _, plain = replace(runner, gpu=None).forward(plan.chunks, requests)
    assert torch.allclose(padded, alone, atol=1e-5)
    assert torch.allclose(padded, plain, atol=1e-5)
    assert torch.allclose(before, runner.cache.keys[:, :-1], atol=1e-6)
    assert runner.cache.keys[:, runner.cache.scratch].any()  # where the padding row wrote


def test_the_joined_projections_take_no_memory_of_their_own(folder: Path) -> None:
    engine = Engine.from_folder(folder, limits=EngineLimits(kv_tokens=512), device="cpu")
    model = engine._runner.model

    def kept() -> int:
        storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
        return sum(storage.nbytes() for storage in storages.values())

    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = kept()
    on_the_gpu_s_way(engine, TorchOps())
    assert kept() == before
    after = model.state_dict()
    assert values.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in values.items())


@dataclass(frozen=True)
class Card:
    major: int
    minor: int = 0
    multi_processor_count: int = 6


class BrokenOps(TritonOps):
    """Triton where it is installed and cannot compile."""

    def __init__(self, processors: int) -> None:
        self.processors = processors

    def norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler")


def test_kernels_that_do_not_run_make_room_for_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = "torch.cuda.get_device_properties"
    monkeypatch.setattr(execution, "TritonOps", BrokenOps)
    monkeypatch.setattr(properties, lambda _: Card(9))
    with pytest.warns(RuntimeWarning, match=r"Failed to find C compiler.*gcc"):
        assert isinstance(default_ops(torch.device("cpu")), TorchOps)
    monkeypatch.setattr(properties, lambda _: Card(7, 5))  # not even tried, and no warning
    assert isinstance(default_ops(torch.device("cpu")), TorchOps)


def test_a_gpu_that_only_emulates_bfloat16_computes_in_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def emulated(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", emulated)
    assert default_dtype(torch.device("cuda")) is torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert default_dtype(torch.device("cuda")) is torch.bfloat16


@given(most=st.integers(1, 300))
def test_a_batch_is_padded_to_less_than_twice_its_rows(most: int) -> None:
    sizes = batch_sizes(most)
    assert sizes == tuple(sorted(set(sizes)))
    assert sizes[-1] == most
    for rows in range(1, most + 1):
        assert next(size for size in sizes if size >= rows) < 2 * rows


@given(parts=st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), max_size=8))
def test_one_transfer_brings_every_part_whole_and_aligned(parts: list[list[int]]) -> None:
    arrays = [np.asarray(part, np.int32) for part in parts]
    sent = upload(arrays, DEVICE)
    assert [tensor.tolist() for tensor in sent] == parts
    assert all(tensor.storage_offset() % ALIGNMENT == 0 for tensor in sent)
    assert flat(arrays, pinned=False).numel() < sum(map(len, parts)) + ALIGNMENT * len(parts) + 1


@settings(max_examples=50)
@given(
    chunks=st.lists(st.tuples(st.integers(0, 9000), st.integers(2, 600)), min_size=1, max_size=9),
    offset=st.integers(0, 5),
)
def test_prefill_launches_cover_every_row_once_and_gather_a_bounded_context(
    chunks: list[tuple[int, int]], offset: int
) -> None:
    built = []
    for at, (start, count) in enumerate(chunks):
        sequence = Sequence(TaskId(str(at)), [0] * (start + count), (), 1, computed=start)
        sequence.blocks = list(range(-(-(start + count) // 16)))
        built.append(Chunk(sequence, start, start + count))
    plans = plan_prefills(built, offset, 16)
    assert plans[0].start == offset
    assert [p.end for p in plans[:-1]] == [p.start for p in plans[1:]]
    assert plans[-1].end == offset + sum(count for _, count in chunks)
    for plan in plans:
        alone = len(plan.rows) == 2
        assert alone or plan.context[-1] <= GATHERED_TOKENS
        assert plan.gathered is None or len(plan.gathered) == plan.context[-1]
        assert plan.end - plan.start == plan.rows[-1]
    gathered = [p for p in plans if p.gathered is not None]
    assert bool(gathered) == any(start for start, _ in chunks)
