"""Proof: on the same checkpoint, the same numbers as transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from forebay.core.request import Message, Role, TaskId, Terms, TextPart
from forebay.engine.prepared import Preparer
from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.loader import load_model
from forebay.models.processor import ImageProcessor
from tests.checkpoints import TINY, TINY_46V, Shape, write_checkpoint
from tests.reference import Picture, Reference, contents, picture, question

SHAPES = {
    "glm4v": TINY,
    "glm46v": TINY_46V,
    "as many kv heads as heads": replace(TINY, kv_heads=4),
    "one kv head, tied embeddings": replace(TINY_46V, kv_heads=1, tie_word_embeddings=True),
    "heads fully rotated": replace(TINY, partial_rotary_factor=1.0, mrope_section=(2, 3, 3)),
    "wide heads, three layers": replace(
        TINY_46V, hidden_size=96, layers=3, heads=3, kv_heads=1, mrope_section=(2, 2, 4)
    ),
    "position table of another side": replace(TINY, image_size=84, vision_depth=3, vision_heads=2),
}
SIZES = ((112, 112), (150, 100), (37, 300), (301, 29), (20, 16), (640, 480))


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys(), scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape: Shape = request.param
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), shape, seed=3)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Glm4vModel:
    return load_model(folder)


CASES = {
    "text only": ((), "what is the price? 图中价格是多少?"),
    "one picture": (((150, 100),), "图中价格是多少?"),
    "a flat picture": (((300, 30),), "what"),
    "a tall picture": (((25, 310),), "what"),
    "a picture larger than the limit": (((900, 700),), "12"),
    "a picture smaller than a token": (((20, 16),), "12"),
    "three pictures of different sizes": (((112, 112), (60, 200), (224, 90)), "which one?"),
    "two pictures of one size": (((112, 84), (112, 84)), "the same?"),
}


@pytest.mark.parametrize(("sizes", "text"), CASES.values(), ids=CASES.keys())
def test_logits_are_those_of_transformers(
    folder: Path,
    model: Glm4vModel,
    reference: Reference,
    sizes: tuple[tuple[int, int], ...],
    text: str,
) -> None:
    pictures = [picture(width, height, seed) for seed, (width, height) in enumerate(sizes)]
    messages = question(text, pictures).messages
    expected = reference.logits(messages, {p.part.sha256: p.image for p in pictures})
    got = _logits(folder, model, text, pictures)
    assert got.shape == expected.shape
    assert (got - expected).abs().max().item() < 1e-4
    assert expected.std().item() > 0.1  # the model says something that depends on its input


def test_logits_of_a_conversation_with_pictures_in_two_turns_agree(
    folder: Path, model: Glm4vModel, reference: Reference
) -> None:
    first, second = picture(120, 80, 1), picture(64, 130, 2)
    messages = (
        Message(Role.SYSTEM, (TextPart("short"),)),
        Message(Role.USER, (first.part, TextPart("what?"))),
        Message(Role.ASSISTANT, (TextPart("红色"),)),
        Message(Role.USER, (TextPart("and "), second.part, TextPart("?"))),
    )
    pictures = {shown.part.sha256: shown.image for shown in (first, second)}
    expected = reference.logits(messages, pictures)
    request = replace(question(""), messages=messages)
    got = _request_logits(folder, model, request, contents((first, second)))
    assert (got - expected).abs().max().item() < 1e-4


@pytest.mark.parametrize("size", SIZES, ids=[f"{w}x{h}" for w, h in SIZES])
def test_patches_are_the_pixels_that_transformers_makes(
    folder: Path, reference: Reference, size: tuple[int, int]
) -> None:
    shown = picture(*size).image
    got, grid = ImageProcessor.from_folder(folder).patches(shown)
    expected = reference.processor(images=[shown], return_tensors="pt")
    assert (1, *grid) == tuple(expected["image_grid_thw"][0].tolist())
    # the reference keeps each pixel twice, once a frame
    frames = expected["pixel_values"].view(-1, 3, 2, 14 * 14)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    assert np.abs(frames[:, :, 0].reshape(got.shape).numpy() - got).max() < 1e-5


def test_a_checkpoint_written_as_bfloat16_is_read_as_float32(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = {k: v.bfloat16() for k, v in load_file(folder / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    name = "model.language_model.layers.0.mlp.down_proj.weight"
    assert torch.equal(loaded.state_dict()[name], weights[name].float())


def _logits(folder: Path, model: Glm4vModel, text: str, pictures: list[Picture]) -> torch.Tensor:
    return _request_logits(folder, model, question(text, pictures), contents(pictures))


@torch.inference_mode()
def _request_logits(folder: Path, model: Glm4vModel, request, images) -> torch.Tensor:
    """The bare model over a prepared prompt, without the engine: plain causal attention."""
    config = Glm4vConfig.from_folder(folder)
    preparer = Preparer.from_folder(folder, config, 4096, frozenset(config.text.eos_token_ids))
    prepared = preparer.prepare(TaskId("t"), request, images, Terms())
    embeds = model.embed(torch.tensor(prepared.token_ids))
    keys = [span.sha256 for span in prepared.spans]
    if keys:
        patches = torch.from_numpy(np.concatenate([prepared.images[k].patches for k in keys]))
        visual = model.visual(patches, [prepared.images[k].grid for k in keys])
        embeds[torch.tensor(prepared.token_ids) == config.image_token_id] = visual
    hidden = model.decode(embeds, torch.from_numpy(prepared.positions), _causal)
    return model.logits(hidden)


def _causal(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)


def test_a_picture_in_another_mode_than_rgb_is_converted(folder: Path) -> None:
    grey = Image.linear_gradient("L")
    processor = ImageProcessor.from_folder(folder)
    assert np.array_equal(processor.patches(grey)[0], processor.patches(grey.convert("RGB"))[0])
