"""8-bit layers against single precision, and which of them a model gets where."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.models import loader, quantization
from forebay.models.errors import QuantizationError
from forebay.models.glm4v import vision
from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.layers import joined, linear_of
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.loader import load_model
from forebay.models.quantization import Machine, Quantization, choose, replace_layers
from forebay.models.quantized_layers import (
    Float8Linear,
    Int8Embedding,
    Int8Linear,
    QuantizedLinear,
    int8_is_exact,
    int8_product,
    quantize_int8,
)
from tests.checkpoints import TINY, Shape, build_tokenizer, config_dict, write_checkpoint

# Half a step of the weights' scale on every input, and half a step of the inputs' on every weight.
INT8_STEP = 1 / 127 / 2
FP8_STEP = 2**-4  # three bits of mantissa, rounded

SMALL = Shape(
    hidden_size=768, intermediate_size=2560, layers=14, heads=12, kv_heads=2,
    mrope_section=(4, 6, 6), vision_depth=12, vision_hidden=512, vision_heads=8,
    vision_intermediate=2560, image_size=336,
)  # fmt: skip
"""The shape of the 150M checkpoint of the measurements."""

rows = st.integers(0, 40)
sides = st.integers(2, 70)
scales = st.sampled_from([1e-6, 0.02, 1.0, 3e4])
seeds = st.integers(0, 2**31)


def inputs(count: int, width: int, scale: float, seed: int) -> torch.Tensor:
    """Rows of very different size, one of them zero, one with a single outlier."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator) * scale
    x = x * torch.logspace(-3, 3, count).unsqueeze(1) if count else x
    if count > 2:
        x[1] = 0.0
        x[2, 0] = 1e3 * scale
    return x


@pytest.mark.parametrize("layer", [Int8Linear, Float8Linear])
@given(count=rows, width=sides, out=sides, scale=scales, seed=seeds, biased=st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_error_is_within_the_steps_of_both_scales(
    layer: type[QuantizedLinear], count, width, out, scale, seed, biased
) -> None:
    x, weight = inputs(count, width, scale, seed), inputs(out, width, scale, seed + 1)
    bias = torch.linspace(-1, 1, out) * scale if biased else None
    got = layer.of(weight, bias)(x)
    expected = torch.nn.functional.linear(x.double(), weight.double())
    if bias is not None:
        expected = expected + bias.double()
    if layer is Int8Linear:
        dx = x.abs().amax(1, keepdim=True).double() * INT8_STEP
        dw = weight.abs().amax(1).double() * INT8_STEP
        bound = dx * weight.abs().sum(1) + x.abs().sum(1, keepdim=True) * dw + width * dx * dw
    else:
        tiny = x.abs().amax(1, keepdim=True).double() * weight.abs().amax(1) * width / 2**14
        bound = (2 * FP8_STEP + FP8_STEP**2) * (x.abs() @ weight.abs().t()).double() + tiny
    rounding = 1e-5 * expected.abs() + 1e-30 + (0 if bias is None else 1e-6 * bias.abs())
    assert got.shape == (count, out)
    assert ((got.double() - expected).abs() <= bound * 1.001 + rounding).all()


@given(count=st.integers(2, 40), width=sides, out=sides, seed=seeds)
@settings(deadline=None, max_examples=25)
def test_a_row_is_the_same_whatever_rows_are_beside_it(count, width, out, seed) -> None:
    x, weight = inputs(count, width, 1.0, seed), inputs(out, width, 1.0, seed + 1)
    layer = Int8Linear.of(weight, None)
    together = layer(x)
    alone = torch.cat([layer(row.unsqueeze(0)) for row in x])
    assert torch.equal(together, alone)
    assert torch.equal(layer(x[1:]), together[1:])


def test_a_row_of_zeros_gives_the_bias() -> None:
    bias = torch.tensor([1.5, -2.0])
    for layer in (Int8Linear, Float8Linear):
        got = layer.of(torch.randn(2, 8), bias)(torch.zeros(3, 8))
        assert torch.equal(got, bias.expand(3, 2))


def test_products_of_the_largest_numbers_are_exact() -> None:
    signs = torch.randint(0, 2, (9, 2560)).mul(2).sub(1).mul(127).to(torch.int8)
    signs[0] = 127
    expected = signs.double() @ signs.double().t()
    if int8_is_exact():
        assert torch.equal(int8_product(signs, signs).double(), expected)


def test_layers_keep_the_shape_and_the_type_of_their_input() -> None:
    layer = Int8Linear.of(torch.randn(5, 8), None)
    assert layer(torch.randn(2, 3, 8)).shape == (2, 3, 5)
    assert layer(torch.randn(3, 8).bfloat16()).dtype == torch.bfloat16


def test_an_embedding_s_rows_have_scales_of_their_own() -> None:
    table = inputs(20, 16, 1.0, seed=5)
    rows, scale = quantize_int8(table)
    embedding = Int8Embedding(rows, scale.squeeze(1), torch.float32)
    ids = torch.tensor([7, 0, 19, 7])
    error = (embedding(ids) - table[ids]).abs()
    assert (error <= table[ids].abs().amax(1, keepdim=True) * INT8_STEP * 1.001).all()


def test_joined_layers_say_what_their_parts_say() -> None:
    parts = [Int8Linear.of(torch.randn(n, 8), torch.randn(n)) for n in (3, 4, 5)]
    x = torch.randn(6, 8)
    got = Int8Linear.joined(parts)(x)
    assert torch.equal(got, torch.cat([part(x) for part in parts], dim=1))


def test_int8_weights_take_at_most_three_tenths_of_the_memory() -> None:
    config = config_dict(SMALL, build_tokenizer())
    config["text_config"]["vocab_size"] = 8192
    with torch.device("meta"):
        whole = Glm4vModel(Glm4vConfig.from_dict(config))
        small = Glm4vModel(Glm4vConfig.from_dict(config))
    replace_layers(small, Quantization.INT8, torch.float32, torch.device("cpu"))
    for model in (whole, small):
        model.join()
    assert sum(p.numel() for p in whole.parameters()) > 140e6
    assert held_bytes(small) <= 0.3 * held_bytes(whole)


@pytest.mark.parametrize("kind", [Quantization.INT8, Quantization.FP8])
def test_cuda_keeps_matrices_in_float_whose_sides_its_kernels_refuse(kind: Quantization) -> None:
    with torch.device("meta"):
        model = Glm4vModel(Glm4vConfig.from_dict(config_dict(TINY, build_tokenizer())))
    shapes = {name: one.shape for name, one in model.named_parameters()}
    conversions = replace_layers(model, kind, torch.bfloat16, torch.device("cuda"))
    assert len(conversions) > 10
    sides = [side for name in conversions for side in (shapes[name][0], shapes[name][1:].numel())]
    assert not any(side % 16 for side in sides)
    assert "lm_head.weight" not in conversions


@pytest.mark.parametrize("kind", [Quantization.INT8, Quantization.FP8])
def test_what_is_to_be_one_matrix_is_quantized_whole_or_not_at_all(kind: Quantization) -> None:
    # keys and values are 8 wide, which the kernels refuse
    narrow = replace(TINY, heads=8, kv_heads=1, partial_rotary_factor=1.0)
    with torch.device("meta"):
        model = Glm4vModel(Glm4vConfig.from_dict(config_dict(narrow, build_tokenizer())))
    conversions = replace_layers(model, kind, torch.bfloat16, torch.device("cuda"))
    assert not [name for name in conversions if "q_proj" in name]
    assert [name for name in conversions if "o_proj" in name]
    model.join()
    (weight,) = {
        one.shape for name, one in model.named_parameters() if name.endswith("qkv_proj.weight")
    }
    assert weight == (64 + 8 + 8, 64)


def test_layers_that_do_not_go_together_are_not_joined() -> None:
    plain, biased = torch.randn(3, 8), torch.ones(3)
    with pytest.raises(ValueError, match="8-bit"):
        joined([Int8Linear.of(plain, None), linear_of(plain, None)])
    with pytest.raises(ValueError, match="8-bit"):
        joined([linear_of(plain, None), Float8Linear.of(plain, None), Int8Linear.of(plain, None)])
    for layer in (Int8Linear.of, linear_of):
        with pytest.raises(ValueError, match="bias"):
            joined([layer(plain, biased), layer(plain, None)])


def held_bytes(model: torch.nn.Module) -> int:
    tensors = (*model.parameters(), *model.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("kind", [Quantization.INT8, Quantization.FP8])
def test_a_quantized_model_says_nearly_what_the_whole_one_says(
    folder: Path, kind: Quantization
) -> None:
    whole, small = load_model(folder), load_model(folder, quantization=kind)
    patches = torch.randn(32, 588, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, got = (model.visual(patches, [(4, 8)]) for model in (whole, small))
    limit = 0.05 if kind is Quantization.INT8 else 0.25
    assert 0 < (got - expected).norm() <= limit * expected.norm()


def test_a_weight_is_let_go_once_it_is_quantized(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, alive, most = loader._read, [], 0

    def watched(path: Path):
        nonlocal most
        for name, tensor in read(path):
            if name.endswith("_proj.weight"):
                alive.append(weakref.ref(tensor))
            most = max(most, sum(one() is not None for one in alive))
            yield name, tensor

    monkeypatch.setattr(loader, "_read", watched)
    load_model(folder, quantization=Quantization.INT8)
    assert len(alive) > 10
    assert most <= 2


@pytest.mark.parametrize("kind", [Quantization.INT8, Quantization.FP8])
def test_a_large_matrix_is_quantized_in_pieces_and_says_the_same(
    folder: Path, kind: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it in single precision would not fit beside the model on a small card."""
    expected = load_model(folder, quantization=kind).state_dict()
    sizes: list[int] = []
    for layer in (Int8Linear, Float8Linear):
        quantize = layer.quantize

        def noted(rows: torch.Tensor, quantize=quantize) -> tuple[torch.Tensor, torch.Tensor]:
            sizes.append(rows.numel())
            return quantize(rows)

        monkeypatch.setattr(layer, "quantize", staticmethod(noted))
    monkeypatch.setattr(quantization, "PIECE", 1000)
    got = load_model(folder, quantization=kind).state_dict()
    assert max(sizes) <= 1000
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        assert torch.equal(tensor.float(), expected[name].float()), name


def test_what_stays_in_floating_point(folder: Path) -> None:
    model = load_model(folder, quantization=Quantization.INT8)
    floats = {name for name, one in model.named_parameters() if one.dim() > 1}
    assert floats == {
        "model.visual.patch_embed.proj.weight",
        "model.visual.embeddings.position_embedding.weight",
    }


def test_tied_weights_are_one_tensor_in_int8_too(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, replace(TINY, tie_word_embeddings=True))
    model = load_model(folder, quantization=Quantization.INT8)
    table = model.model.language_model.embed_tokens.weight
    assert table.dtype == torch.int8
    assert model.lm_head.weight.data_ptr() == table.data_ptr()


def small_config(hidden: int) -> Glm4vConfig:
    shape = replace(TINY, hidden_size=hidden, heads=hidden // 16)
    return Glm4vConfig.from_dict(config_dict(shape, build_tokenizer()))


VNNI = Machine("cpu", int8_products=True)
GPU = Machine("cuda", int8_products=True, capability=(9, 0), free_bytes=10**9)


@pytest.mark.parametrize(
    ("machine", "hidden", "weights", "chosen"),
    [
        (VNNI, 256, 1, Quantization.INT8),
        (VNNI, 128, 1, Quantization.NONE),
        (Machine("cpu"), 4096, 1, Quantization.NONE),
        (Machine("mps"), 4096, 1, Quantization.NONE),
        (GPU, 4096, 10**8, Quantization.NONE),
        (GPU, 4096, 10**9, Quantization.INT8),
    ],
)
def test_the_choice_suits_machine_and_model(machine, hidden, weights, chosen) -> None:
    choice = choose(Quantization.AUTO, machine, small_config(hidden), weights)
    assert choice.quantization is chosen
    assert choice.reason


def test_fp8_is_refused_where_it_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(GPU, capability=(8, 0))
    for machine in (VNNI, old):
        with pytest.raises(QuantizationError, match=r"8\.9.*choose int8"):
            choose(Quantization.FP8, machine, small_config(64), 1)
    monkeypatch.setattr(quantization, "fp8_failure", lambda: "CUBLAS_STATUS_NOT_SUPPORTED")
    with pytest.raises(QuantizationError, match=r"NOT_SUPPORTED.*choose int8"):
        choose(Quantization.FP8, GPU, small_config(64), 1)
    monkeypatch.setattr(quantization, "fp8_failure", lambda: None)
    assert choose(Quantization.FP8, GPU, small_config(64), 1).quantization is Quantization.FP8


def test_int8_is_refused_where_products_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.models.quantization.int8_is_exact", lambda: False)
    with pytest.raises(QuantizationError, match="overflow"):
        choose(Quantization.INT8, VNNI, small_config(64), 1)


def test_narrow_attention_is_the_wide_one_but_for_its_rounding() -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 700, 2, 16, generator=generator) for _ in range(3))
    expected, got = vision._attend(q, k, v), vision._attend_by_head(q, k, v, torch.bfloat16)
    assert (got - expected).norm() <= 0.02 * expected.norm()
    assert torch.equal(vision._attend_by_head(q[:1], k[:1], v[:1], torch.bfloat16), got[:1])
