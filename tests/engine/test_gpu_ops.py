"""The Triton kernels and their torch twins say the same thing, and both say the textbook's.

On a machine without a GPU the kernels run through Triton's interpreter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from forebay.engine.gpu.ops import BlockTables, Ops, TorchOps
from forebay.engine.gpu.triton_ops import TritonOps, splits_for
from tests.engine.gpu_support import DEVICE, HAS_CUDA, INTERPRETED, needs_cuda, triton_ops

DTYPES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# the interpreter multiplies matrices of bfloat16 by their bits, as if they were integers
MULTIPLIED = [dtype for dtype in DTYPES if dtype is not torch.bfloat16 or not INTERPRETED]

EXAMPLES = 10 if HAS_CUDA else 15
"""On a GPU nearly each one is compiled anew."""

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""An interpreted kernel takes a good part of a second: shrinking would take many minutes."""


@pytest.fixture(params=["torch", "triton"], scope="module")
def ops(request: pytest.FixtureRequest) -> Ops:
    return TorchOps() if request.param == "torch" else triton_ops()


@dataclass(frozen=True)
class Heads:
    heads: int
    kv_heads: int
    width: int


HEADS = st.builds(
    lambda kv_heads, group, width: Heads(kv_heads * group, kv_heads, width),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 3, 16]),
    st.sampled_from([16, 48, 64, 80, 96, 128]),
)


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(DEVICE, dtype)


def scattered(lengths: list[int], block: int) -> tuple[BlockTables, list[list[int]], int]:
    """Block tables over shuffled blocks, each row's block list, and how many blocks there are."""
    counts = [-(-length // block) for length in lengths]
    order = torch.randperm(sum(counts) + 3).tolist()
    rows, flat, starts = [], [], []
    for count in counts:
        starts.append(len(flat))
        rows.append([order.pop() for _ in range(count)])
        flat += rows[-1]
    tensors = (torch.tensor(t, dtype=torch.int32, device=DEVICE) for t in (flat, starts, lengths))
    return BlockTables(*tensors, longest=max(lengths)), rows, sum(counts) + 3


@settings(max_examples=EXAMPLES, deadline=None, phases=NO_SHRINKING)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    block=st.sampled_from([1, 3, 16, 32]),
    heads=HEADS,
    dtype=st.sampled_from(MULTIPLIED),
    seed=st.integers(0, 2**31),
)
def test_paged_decode_is_attention_over_the_gathered_context(
    ops: Ops, lengths: list[int], block: int, heads: Heads, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    tables, rows, blocks = scattered(lengths, block)
    keys = randn(blocks, block, heads.kv_heads, heads.width, dtype=dtype)
    values = randn(blocks, block, heads.kv_heads, heads.width, dtype=dtype)
    # rows of a wider matrix, as the decoder's queries are
    wide = randn(len(lengths), heads.heads + 5, heads.width, dtype=dtype)
    q = wide[:, : heads.heads]
    got = ops.paged_decode(q, keys, values, tables)
    for at, length in enumerate(lengths):
        k, v = (t[rows[at]].flatten(0, 1)[:length].double() for t in (keys, values))
        expected = textbook(q[at].double(), k, v)
        assert (got[at].double() - expected).abs().max() < DTYPES[dtype] * 3


def textbook(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One token's attention: q [heads, width], k and v [length, kv heads, width]."""
    repeat = q.shape[0] // k.shape[1]
    k, v = (t.repeat_interleave(repeat, dim=1) for t in (k, v))
    weights = (torch.einsum("hd,khd->hk", q, k) / math.sqrt(q.shape[-1])).softmax(dim=-1)
    return torch.einsum("hk,khd->hd", weights, v)


def test_a_row_does_not_feel_its_neighbours(ops: Ops) -> None:
    torch.manual_seed(0)
    tables, _, blocks = scattered([200, 1, 77], 16)
    keys, values = (randn(blocks, 16, 2, 64) for _ in range(2))
    q = randn(3, 8, 64)
    together = ops.paged_decode(q, keys, values, tables)
    lone = BlockTables(tables.flat, tables.starts[2:], tables.lengths[2:], longest=77)
    alone = ops.paged_decode(q[2:], keys, values, lone)
    assert (together[2] - alone[0]).abs().max() < 1e-5


def test_plain_torch_gathers_a_bounded_context_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory was measured with short contexts; long ones must not need much more."""
    torch.manual_seed(0)
    lengths = [200, 1, 77, 130, 9]
    tables, _, blocks = scattered(lengths, 16)
    keys, values = (randn(blocks, 16, 2, 16) for _ in range(2))
    q = randn(5, 8, 16)
    whole = TorchOps().paged_decode(q, keys, values, tables)
    rows: list[int] = []
    attend = F.scaled_dot_product_attention

    def noted(q: torch.Tensor, *rest: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        rows.append(len(q))
        return attend(q, *rest, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    for most, expected in ((400, [2, 2, 1]), (100, [1] * 5)):
        monkeypatch.setattr("forebay.engine.gpu.ops.GATHERED_TOKENS", most)
        rows.clear()
        got = TorchOps().paged_decode(q, keys, values, tables)
        assert rows == expected
        assert (got - whole).abs().max() < 1e-5


@settings(max_examples=EXAMPLES, deadline=None, phases=NO_SHRINKING)
@given(
    tokens=st.integers(1, 5),
    heads=HEADS,
    rotated=st.sampled_from([0.5, 1.0]),
    dtype=st.sampled_from(list(DTYPES)),
    seed=st.integers(0, 2**31),
)
def test_rotation_turns_queries_and_keys_and_stores_both_caches(
    ops: Ops, tokens: int, heads: Heads, rotated: float, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    pairs = int(heads.width * rotated) // 2
    qkv = randn(tokens, heads.heads + 2 * heads.kv_heads, heads.width, dtype=dtype)
    before = qkv.clone().double()
    angles = torch.rand(tokens, pairs).to(DEVICE) * 7
    keys = torch.zeros(4, 3, heads.kv_heads, heads.width, dtype=dtype, device=DEVICE)
    values = torch.zeros_like(keys)
    slots = torch.randperm(12)[:tokens].to(DEVICE, torch.int32)
    ops.rotate_and_store(qkv, (angles.cos(), angles.sin()), slots, keys, values)
    expected = before.clone()
    turn = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    part = before[:, : -heads.kv_heads, : 2 * pairs].unflatten(-1, (-1, 2)).contiguous()
    turned = torch.view_as_real(torch.view_as_complex(part) * turn).flatten(-2)
    expected[:, : -heads.kv_heads, : 2 * pairs] = turned
    assert (qkv.double() - expected).abs().max() < DTYPES[dtype] * 4
    at = slots.long()
    k, v = qkv[:, heads.heads : heads.heads + heads.kv_heads], qkv[:, -heads.kv_heads :]
    assert torch.equal(keys.flatten(0, 1)[at], k)
    assert torch.equal(values.flatten(0, 1)[at], v)
    untouched = torch.ones(12, dtype=torch.bool, device=DEVICE)
    untouched[at] = False
    assert not keys.flatten(0, 1)[untouched].any()
    assert not values.flatten(0, 1)[untouched].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [48, 4096])
def test_the_sum_and_its_norm_are_those_of_separate_steps(
    ops: Ops, dtype: torch.dtype, size: int
) -> None:
    torch.manual_seed(1)
    x, branch = (randn(3, size, dtype=dtype) for _ in range(2))
    first, second = (1 + 0.1 * randn(size, dtype=dtype) for _ in range(2))
    total = x.double() + textbook_norm(branch) * first.double()
    plain = ops.norm(x, second, 1e-5)
    assert (plain.double() - textbook_norm(x) * second.double()).abs().max() < DTYPES[dtype] * 4
    normed = ops.add_norm(x, branch, first, second, 1e-5)
    assert (x.double() - total).abs().max() < DTYPES[dtype] * 4
    assert (normed.double() - textbook_norm(x) * second.double()).abs().max() < DTYPES[dtype] * 4


def textbook_norm(x: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [40, 1500])
def test_the_gate_is_silu(ops: Ops, dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(2)
    gate_up = randn(3, 2 * size, dtype=dtype)
    gate, up = gate_up.double().chunk(2, dim=-1)
    expected = gate * gate.sigmoid() * up
    assert (ops.gated(gate_up).double() - expected).abs().max() < DTYPES[dtype] * 8


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(40, 48), (13, 1500)])
def test_one_row_is_multiplied_as_any_other(dtype: torch.dtype, rows: int, columns: int) -> None:
    torch.manual_seed(3)
    ops = triton_ops()
    x, weight, bias = (
        randn(*shape, dtype=dtype) for shape in ((1, columns), (rows, columns), (rows,))
    )
    for added in (bias, None):
        exact = x.double() @ weight.double().t() + (0 if added is None else added.double())
        assert (ops.streamed(x, weight, added).double() - exact).norm() / exact.norm() < DTYPES[
            dtype
        ]
        assert (ops.product(x, weight, added).double() - exact).norm() / exact.norm() < DTYPES[
            dtype
        ]


@needs_cuda
def test_the_quicker_product_is_chosen_by_measurement() -> None:
    ops = triton_ops()
    weights = [randn(4096, 4096, dtype=torch.bfloat16) for _ in range(4)]
    ratios = ops.stream_where_quicker(weights, torch.cuda.Stream())
    assert ratios.keys() == {(4096, 4096)}
    assert ops._streamed == {shape for shape, ratio in ratios.items() if ratio > 1}


@given(programs=st.integers(1, 4096), processors=st.integers(1, 200))
def test_splits_fill_the_device_and_stay_powers_of_two(programs: int, processors: int) -> None:
    splits = splits_for(programs, processors)
    assert splits & (splits - 1) == 0
    assert 1 <= splits <= 32
    assert splits == 32 or splits * programs >= 2 * processors
    assert splits == 1 or splits // 2 * programs < 2 * processors


def test_the_kernels_are_said_to_be_capturable() -> None:
    assert TritonOps.capturable
    assert not TorchOps.capturable
