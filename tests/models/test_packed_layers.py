"""Arranged INT8 layers against the plain ones, and which layers of a model are arranged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from forebay.models import packed_layers
from forebay.models.loader import load_model
from forebay.models.packed_layers import PackedInt8Linear, pack_layers, packing_is_exact
from forebay.models.quantization import Quantization
from forebay.models.quantized_layers import Int8Linear
from tests.checkpoints import TINY, write_checkpoint

pytestmark = pytest.mark.skipif(
    not packing_is_exact(), reason="no exact kernel for arranged matrices here"
)

sides = st.integers(2, 70)
seeds = st.integers(0, 2**31)


def rows_of(count: int, width: int, seed: int) -> torch.Tensor:
    """Rows of very different size, one of them zero."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    x = x * torch.logspace(-3, 3, count).unsqueeze(1) if count else x
    if count > 2:
        x[1] = 0.0
    return x


@given(count=st.integers(0, 40), width=sides, out=sides, seed=seeds, biased=st.booleans())
@settings(deadline=None, max_examples=40)
def test_an_arranged_layer_says_what_the_plain_one_says(
    count: int, width: int, out: int, seed: int, biased: bool
) -> None:
    bias = torch.linspace(-1, 1, out) if biased else None
    plain = Int8Linear.of(rows_of(out, width, seed), bias)
    x = rows_of(count, width, seed + 1)
    before = x.clone()
    torch.testing.assert_close(PackedInt8Linear(plain)(x), plain(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before)


@given(count=st.integers(2, 40), width=sides, out=sides, seed=seeds, biased=st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_row_is_the_same_whatever_rows_are_beside_it(
    count: int, width: int, out: int, seed: int, biased: bool
) -> None:
    bias = torch.linspace(-1, 1, out) if biased else None
    layer = PackedInt8Linear(Int8Linear.of(rows_of(out, width, seed), bias))
    x = rows_of(count, width, seed + 1)
    together = layer(x)
    assert torch.equal(together, torch.cat([layer(row.unsqueeze(0)) for row in x]))
    assert torch.equal(layer(x[1:]), together[1:])


def test_shape_and_type_are_the_input_s() -> None:
    layer = PackedInt8Linear(Int8Linear.of(torch.randn(5, 8), torch.ones(5)))
    assert layer(torch.randn(2, 3, 8)).shape == (2, 3, 5)
    assert layer(torch.randn(3, 8).bfloat16()).dtype == torch.bfloat16
    assert layer(torch.randn(2, 0, 8)).shape == (2, 0, 5)


def kinds(model: nn.Module) -> dict[str, type[nn.Module]]:
    wanted = (Int8Linear, PackedInt8Linear)
    return {name: type(one) for name, one in model.named_modules() if isinstance(one, wanted)}


def test_the_vision_tower_and_large_matrices_are_arranged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(write_checkpoint(tmp_path), quantization=Quantization.INT8)
    largest = model.lm_head.weight.numel()
    work = model.token_work
    monkeypatch.setattr(packed_layers, "PACKED_FROM", largest)
    pack_layers(model)
    found = kinds(model)
    assert len(found) > 10
    for name, kind in found.items():
        wanted = name.startswith("model.visual.") or name == "lm_head"
        assert (kind is PackedInt8Linear) == wanted, name
    assert model.token_work == work


def test_an_arranged_model_says_what_it_said(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path), quantization=Quantization.INT8)
    patches = torch.randn(32, 588, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = model.visual(patches, [(4, 8)])
        pack_layers(model)
        after = model.visual(patches, [(4, 8)])
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_a_tied_head_stays_the_embedding_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_layers, "PACKED_FROM", 1)
    folder = write_checkpoint(tmp_path, replace(TINY, tie_word_embeddings=True))
    model = load_model(folder, quantization=Quantization.INT8)
    pack_layers(model)
    table = model.model.language_model.embed_tokens.weight
    assert model.lm_head.weight.data_ptr() == table.data_ptr()
    assert PackedInt8Linear in kinds(model).values()


def test_all_stay_where_there_is_no_exact_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_layers, "packing_is_exact", lambda: False)
    model = load_model(write_checkpoint(tmp_path), quantization=Quantization.INT8)
    pack_layers(model)
    assert set(kinds(model).values()) == {Int8Linear}
