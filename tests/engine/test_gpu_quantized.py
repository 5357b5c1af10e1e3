"""8-bit layers on a GPU against their arithmetic on a CPU: ``scripts/gpu_suite.sh`` runs these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forebay.core.request import TaskId
from forebay.engine.engine import Engine
from forebay.engine.gpu.inputs import HostStep
from forebay.engine.limits import EngineLimits
from forebay.models.loader import load_model
from forebay.models.quantization import FP8_CAPABILITY, Quantization
from forebay.models.quantized_layers import (
    Float8Linear,
    Int8Embedding,
    Int8Linear,
    QuantizedLinear,
    int8_product,
    quantize_fp8,
    quantize_int8,
)
from tests.checkpoints import TINY_46V, write_checkpoint
from tests.engine.gpu_support import HAS_CUDA, needs_cuda
from tests.reference import Reference, contents, picture, question

pytestmark = [needs_cuda, pytest.mark.gpu]

SHAPE = replace(
    TINY_46V,
    hidden_size=256,
    intermediate_size=512,
    layers=3,
    heads=4,
    mrope_section=(4, 6, 6),
    vision_hidden=64,
    vision_intermediate=128,
)
"""Sides that CUDA's 8-bit kernels take; the head, whose side is the vocabulary, may stay."""

KINDS = [
    Quantization.INT8,
    pytest.param(
        Quantization.FP8,
        marks=pytest.mark.skipif(
            not (HAS_CUDA and torch.cuda.get_device_capability() >= FP8_CAPABILITY),
            reason="needs compute capability 8.9",
        ),
    ),
]
LAYERS = {Quantization.INT8: Int8Linear, Quantization.FP8: Float8Linear}
NEAR = {Quantization.INT8: 0.1, Quantization.FP8: 0.3}
"""How far a model's 8-bit logits may be from single precision's, as a share of their length."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), SHAPE, seed=5)


def uneven(rows: int, columns: int) -> torch.Tensor:
    """Rows of very different size, the first one zero where there are several."""
    x = torch.randn(rows, columns) * torch.logspace(-3, 3, rows).unsqueeze(1)
    return x * (torch.arange(rows) > 0).unsqueeze(1) if rows > 1 else x


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 31, 32, 33, 300])
@pytest.mark.parametrize(("columns", "out"), [(16, 16), (48, 80), (256, 4608), (13_696, 256)])
def test_int8_products_are_exact(rows: int, columns: int, out: int) -> None:
    x, weight = (torch.randint(-127, 128, (n, columns), dtype=torch.int8) for n in (rows, out))
    x[0], weight[0] = 127, -127
    got = int8_product(x.cuda(), weight.cuda())
    assert torch.equal(got.cpu().double(), x.double() @ weight.double().t())


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_fp8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_become_the_same_8_bits_as_on_a_cpu(quantize, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = uneven(40, 512).to(dtype)
    x[3, 7] = 3e4
    for got, expected in zip(quantize(x.cuda()), quantize(x), strict=True):
        assert torch.equal(got.cpu().float(), expected.float())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 5, 64, 257])
@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_says_what_it_says_on_a_cpu(kind: Quantization, rows: int, biased: bool) -> None:
    torch.manual_seed(2)
    layer = LAYERS[kind].of(torch.randn(4608, 1024) / 32, torch.randn(4608) if biased else None)
    x = uneven(rows, 1024)
    expected = layer(x)
    got = layer.cuda()(x.cuda()).cpu()
    # FP8's product comes out in bfloat16, before the bias
    off = 1e-5 if kind is Quantization.INT8 else 6e-3
    assert ((got - expected).norm(dim=1) <= off * expected.norm(dim=1) + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_feel_its_neighbours(kind: Quantization) -> None:
    torch.manual_seed(3)
    layer = LAYERS[kind].of(torch.randn(512, 1024), None).cuda()
    x = uneven(48, 1024).cuda()
    alone = torch.cat([layer(row.unsqueeze(0)) for row in x])
    bound = 1e-6 if kind is Quantization.INT8 else 1e-2  # of FP8, sums may be in another order
    assert ((layer(x) - alone).norm(dim=1) <= bound * alone.norm(dim=1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_joined_layers_say_what_their_parts_say(kind: Quantization) -> None:
    torch.manual_seed(4)
    parts = [LAYERS[kind].of(torch.randn(n, 64), torch.randn(n)).cuda() for n in (32, 48, 16)]
    x = torch.randn(6, 64, device="cuda")
    expected = torch.cat([part(x) for part in parts], dim=1)
    got = LAYERS[kind].joined(parts)(x)
    assert (got - expected).norm() <= 1e-2 * expected.norm()


def test_an_embedding_is_read_by_ids_of_both_integer_types() -> None:
    rows, scale = quantize_int8(torch.randn(48, 64))
    table = Int8Embedding(rows, scale.squeeze(1), torch.bfloat16)
    ids = torch.tensor([7, 0, 47, 7])
    expected = table(ids)
    table.cuda()
    for dtype in (torch.int32, torch.int64):
        assert torch.equal(table(ids.to("cuda", dtype)).cpu(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_loaded_to_the_same_8_bits(folder: Path, kind: Quantization) -> None:
    there = load_model(folder, dtype=torch.bfloat16, device="cuda", quantization=kind)
    here = load_model(folder, quantization=kind)
    found = {name: module for name, module in there.named_modules() if type(module) is LAYERS[kind]}
    assert len(found) > 10
    for name, module in found.items():
        other = here.get_submodule(name)
        assert isinstance(other, QuantizedLinear)
        assert torch.equal(module.weight.cpu().float(), other.weight.float()), name
        assert torch.equal(module.scale.cpu(), other.scale), name


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_near_those_of_transformers(folder: Path, kind: Quantization) -> None:
    shown = [picture(150, 100, 1), picture(60, 200, 2)]
    request = question("图中价格是多少?", shown, max_tokens=4)
    limits = EngineLimits(max_running=2, kv_tokens=1024)
    engine = Engine.from_folder(folder, limits=limits, device="cuda", quantization=kind)
    engine.add(engine.prepare(TaskId("a"), request, contents(shown)))
    seen: list[torch.Tensor] = []
    model = engine._runner.model
    logits = model.logits
    model.logits = lambda hidden: seen.append(logits(hidden)) or seen[-1]
    engine.step()
    pictures = {p.part.sha256: p.image for p in shown}
    expected = Reference(folder).logits(request.messages, pictures)[-1]
    got = seen[0][-1].float().cpu()
    assert (got - expected).norm() / expected.norm() < NEAR[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_graph_says_what_its_launches_say(folder: Path, kind: Quantization) -> None:
    limits = EngineLimits(max_running=5, kv_tokens=2048)
    engine = Engine.from_folder(folder, limits=limits, device="cuda", quantization=kind)
    requests = {}
    for name in map(TaskId, "abcde"):
        requests[name] = engine.prepare(name, question(name * 5, max_tokens=30), {})
        engine.add(requests[name])
    engine.step()
    gpu = engine._runner.gpu
    chunks = engine._scheduler.schedule().chunks
    block, scratch = gpu.cache.block_size, gpu.cache.scratch
    with torch.inference_mode():
        for rows in (1, 3, 5):
            size = next(size for size in gpu.static.sizes if size >= rows)
            step = HostStep.of(chunks[:rows], rows, requests, block)
            gpu.static._load(step.padded(size, scratch, block))
            replayed = gpu.static.compute(size, 1)[:rows].clone()
            launched = gpu.static.run(size, 1)[:rows]
            assert replayed.abs().sum() > 0
            assert (replayed - launched).norm() / launched.norm() < 1e-3
