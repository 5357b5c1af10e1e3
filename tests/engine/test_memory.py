"""The KV cache takes what is safe, and a start that could fail later fails at once, saying why."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from forebay.core.errors import InvalidImageError
from forebay.core.request import TaskId
from forebay.engine import memory_profile, sampler
from forebay.engine.engine import Engine
from forebay.engine.host_memory import available_bytes
from forebay.engine.limits import EngineLimits
from forebay.engine.memory import EngineMemoryError, KVNeed, MemoryUse, split_memory
from forebay.engine.memory_profile import kv_need, largest_requests, measured_use, picture_sides
from tests.checkpoints import TINY, write_checkpoint
from tests.reference import contents, picture, question

GIB = 2**30
SIZES = st.integers(0, 200 * GIB)

USES = st.builds(MemoryUse, free=SIZES, weights=SIZES, activations=SIZES, pictures=SIZES)
NEEDS = st.builds(
    KVNeed,
    block=st.sampled_from([1, 8, 16, 32]),
    block_bytes=st.integers(1, 2**24),
    layers=st.integers(1, 80),
    least_tokens=st.integers(1, 2**17),
    most_tokens=st.integers(1, 2**24),
)
SHARES = st.floats(0.05, 1.0)


@given(use=USES, need=NEEDS, share=SHARES)
def test_the_parts_add_up_and_stay_under_the_share(
    use: MemoryUse, need: KVNeed, share: float
) -> None:
    try:
        split = split_memory(use, need, share)
    except EngineMemoryError:
        assume(False)
        return
    parts = (split.weights, split.activations, split.pictures, split.kv, split.reserve)
    assert sum(parts) == split.total == use.free
    assert min(parts) >= 0
    assert split.total - split.reserve <= use.free * share
    assert split.kv_tokens >= need.least_tokens
    assert split.kv == split.kv_tokens // need.block * need.block_bytes


@given(use=USES, need=NEEDS, share=SHARES)
def test_no_room_is_left_unused_but_for_what_no_request_could_use(
    use: MemoryUse, need: KVNeed, share: float
) -> None:
    try:
        split = split_memory(use, need, share)
    except EngineMemoryError:
        blocks = -(-need.least_tokens // need.block)
        needed = use.weights + use.activations + use.pictures + blocks * need.block_cost
        assert needed > int(use.free * share)
        return
    full = split.kv_tokens >= max(need.most_tokens, need.least_tokens)
    another = split.total - split.reserve + need.block_cost
    assert full or another > int(use.free * share)


def test_the_error_names_what_was_measured_and_the_settings_to_change() -> None:
    need = KVNeed(16, 16 * 40_960, 40, least_tokens=4096, most_tokens=10**6)
    use = MemoryUse(free=11 * GIB, weights=10 * GIB, activations=GIB // 2, pictures=2**26)
    with pytest.raises(EngineMemoryError) as raised:
        split_memory(use, need, 0.9)
    told = str(raised.value)
    for word in ("11.00 GiB", "10.00 GiB", "4096 tokens", "context_tokens", "token_budget"):
        assert word in told
    for setting in ("max_running", "image_side", "memory_share", "quantized"):
        assert setting in told


def test_a_split_says_itself_in_a_line() -> None:
    need = KVNeed(16, 16 * 40_960, 40, least_tokens=4096, most_tokens=10**6)
    split = split_memory(MemoryUse(24 * GIB, 18 * GIB, GIB, 2**26), need, 0.9)
    assert str(split).startswith("24.00 GiB: weights 18.00 GiB, activations 1.")
    assert f"{split.kv_tokens} tokens" in str(split)


@dataclass
class FakeMemory:
    """A device whose bytes are numbers: ``left`` is free now."""

    left: int
    settled: int = 0
    log: list[str] = field(default_factory=list)

    def free(self) -> int:
        self.log.append("free")
        return self.left

    def settle(self) -> None:
        self.log.append("settle")
        self.left += self.settled
        self.settled = 0


@dataclass
class FakeExercised:
    cache_bytes: int


def test_activations_are_what_the_largest_step_took_beside_its_cache() -> None:
    memory = FakeMemory(left=70)

    def exercise() -> FakeExercised:
        memory.log.append("exercise")
        memory.left -= 25
        memory.settled = 25
        return FakeExercised(cache_bytes=10)

    use = measured_use(memory, 100, exercise, pictures=3)
    assert use == MemoryUse(free=100, weights=30, activations=15, pictures=3)
    # what the allocator holds back counts as taken until it was measured
    assert memory.log == ["settle", "free", "exercise", "free", "settle"]


def test_a_device_too_small_for_one_step_is_an_error_that_says_what_to_change() -> None:
    def exercise() -> FakeExercised:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(EngineMemoryError, match="token_budget"):
        measured_use(FakeMemory(70), 100, exercise, pictures=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), TINY)


LIMITS = EngineLimits(max_running=4, token_budget=300, vision_budget=40, largest_image=30)


@given(budget=st.integers(1, 4000), largest=st.integers(4, 2000), longest=st.integers(200, 9000))
def test_the_pictures_of_the_largest_step_are_the_most_that_one_step_encodes(
    budget: int, largest: int, longest: int
) -> None:
    limits = EngineLimits(vision_budget=budget, largest_image=largest)
    sides = picture_sides(limits, longest)
    tokens = sum(side * side for side in sides)
    assert tokens <= max(budget, largest)
    assert all(side * side <= largest for side in sides)
    assert tokens + 2 * len(sides) <= max(0, longest - memory_profile.PROMPT_ROOM) + 2
    roomy = longest - memory_profile.PROMPT_ROOM > 2 * max(budget, largest)
    assert not roomy or max(budget, largest) - tokens < 4


def test_the_largest_step_fills_every_budget(folder: Path) -> None:
    """What is measured must be no smaller than what is served."""
    engine = Engine.from_folder(folder, limits=replace(LIMITS, kv_tokens=2048), device="cpu")
    for request in largest_requests(engine._preparer, LIMITS):
        engine.add(request)
    first = engine.step().stats
    assert first.prefill_tokens == LIMITS.token_budget
    assert first.images_encoded >= 2
    most = first.decode_tokens
    while engine.has_work:
        most = max(most, engine.step().stats.decode_tokens)
    assert most >= LIMITS.max_running - 1
    engine.check_integrity()


def test_the_largest_step_draws_from_the_whole_vocabulary_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most draws look at a thousand tokens; one that must order all takes a hundred times more."""
    engine = Engine.from_folder(folder, limits=replace(LIMITS, kv_tokens=64), device="cpu")
    asked = largest_requests(engine._preparer, LIMITS)
    counts: list[int] = []
    descending = sampler._descending

    def noted(values: torch.Tensor, count: int) -> torch.Tensor:
        counts.append(count)
        return descending(values, count)

    monkeypatch.setattr(sampler, "_descending", noted)
    logits = torch.randn(len(asked), 50_000, generator=torch.Generator().manual_seed(0)) * 10
    sampler.sample(logits, [sampler.Row(one.sampling) for one in asked])
    assert counts[-1] == 50_000


def test_an_engine_is_sized_by_what_its_device_has_left(folder: Path) -> None:
    """The whole way from measuring to the KV cache, over a device of made-up numbers."""
    plain = Engine.from_folder(folder, limits=replace(LIMITS, kv_tokens=64), device="cpu")
    model, preparer = plain._runner.model, replace(plain._preparer, longest=4096)
    need = kv_need(model.config, replace(LIMITS, context_tokens=500), torch.float32)
    room = 40 * 2**20
    memory = FakeMemory(left=room)
    sized = Engine.sized(
        model,
        preparer,
        plain._answers.stop_ids,
        replace(LIMITS, context_tokens=500, encoder_cache_bytes=0),
        torch.device("cpu"),
        memory,
        room + 2**20,
    )
    assert sized.memory is not None
    assert sized.memory.weights == 2**20
    assert sized.memory.kv <= room * 0.9
    assert sized.free_tokens == sized.memory.kv_tokens >= need.least_tokens
    assert sized.longest == min(4096, sized.free_tokens)
    assert sized.warm_up() > 0
    with pytest.raises(EngineMemoryError, match="context_tokens"):
        Engine.sized(
            model,
            preparer,
            plain._answers.stop_ids,
            LIMITS,
            torch.device("cpu"),
            FakeMemory(left=2**20),
            2**21,
        )


def test_a_cpu_s_cache_is_bounded_by_the_memory_there_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = EngineLimits(max_running=4)
    whole = Engine.from_folder(folder, limits=limits, device="cpu")
    model = whole._runner.model
    need = kv_need(model.config, limits, torch.float32)
    fixed = memory_profile.estimated_activations(model.config, limits, torch.float32)
    fixed += memory_profile.picture_bytes(model.config, limits, torch.float32)

    def with_room_for(tokens: int) -> Engine:
        free = int((fixed + tokens // need.block * need.block_cost) / limits.memory_share) + 1
        monkeypatch.setattr(memory_profile, "available_bytes", lambda: free)
        return Engine.from_folder(folder, limits=limits, device="cpu")

    assert with_room_for(6000).free_tokens == 6000
    with pytest.raises(EngineMemoryError, match="memory_share"):
        with_room_for(4080)
    monkeypatch.setattr(memory_profile, "available_bytes", lambda: None)
    unbounded = Engine.from_folder(folder, limits=limits, device="cpu")
    assert unbounded.free_tokens == whole.free_tokens > 6000


def test_a_picture_larger_than_what_was_measured_is_refused(folder: Path) -> None:
    engine = Engine.from_folder(folder, limits=replace(LIMITS, kv_tokens=512), device="cpu")
    small, large = picture(140, 140), picture(220, 220)
    engine.prepare(TaskId("a"), question("?", [small]), contents([small]))
    with pytest.raises(InvalidImageError, match="at most 40"):
        engine.prepare(TaskId("b"), question("?", [large]), contents([large]))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable:      500 kB\n"}


def test_a_machine_without_groups_has_what_the_kernel_says(tmp_path: Path) -> None:
    assert available_bytes(write(tmp_path, MEMINFO)) == 500 * 1024
    assert available_bytes(tmp_path / "nothing") is None


def test_the_tightest_group_above_the_process_counts_and_droppable_pages_do_not(
    tmp_path: Path,
) -> None:
    top = "sys/fs/cgroup"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/pod/container\n",
        f"{top}/pod/memory.max": "300000\n",
        f"{top}/pod/memory.current": "250000\n",
        f"{top}/pod/memory.stat": "anon 150000\ninactive_file 40000\n",
        f"{top}/pod/container/memory.max": "max\n",
        f"{top}/pod/container/memory.current": "1\n",
    }
    assert available_bytes(write(tmp_path, files)) == 300_000 - 250_000 + 40_000


def test_version_1_of_groups_counts_too(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "4:memory:/x\n",
        f"{folder}/memory.limit_in_bytes": "200000\n",
        f"{folder}/memory.usage_in_bytes": "190000\n",
        f"{folder}/memory.stat": "total_inactive_file 5000\n",
    }
    assert available_bytes(write(tmp_path, files)) == 15_000
