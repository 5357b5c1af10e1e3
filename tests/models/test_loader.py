"""A checkpoint folder that is not whole says which file is at fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from forebay.models.chat_template import ChatTemplate
from forebay.models.errors import (
    CheckpointError,
    CorruptFileError,
    MissingFileError,
    UnsupportedArchitectureError,
    WeightsMismatchError,
)
from forebay.models.loader import canonical_name, load_model
from forebay.models.processor import ImageProcessor
from forebay.models.tokenizer import TextTokenizer
from tests.checkpoints import TINY_46V, write_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), TINY_46V)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def edit_config(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict], None]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def test_equal_arguments_write_equal_checkpoints(whole: Path, tmp_path: Path) -> None:
    again = write_checkpoint(tmp_path / "again", TINY_46V)
    for path in whole.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MissingFileError, match=name) as caught:
        load_model(folder)
    assert caught.value.path == folder / name


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_truncated_weights_are_named(folder: Path, share: float) -> None:
    path = folder / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptFileError, match=WEIGHTS):
        load_model(folder)


def test_weights_that_are_something_else_are_named(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n")
    with pytest.raises(CorruptFileError, match=WEIGHTS):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"architectures": [1'])
def test_a_config_that_is_not_a_json_object_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"config\.json"):
        load_model(folder)


@pytest.mark.parametrize("name", ["Qwen2VLForConditionalGeneration", "LlamaForCausalLM"])
def test_another_architecture_is_refused_by_name(folder: Path, name: str) -> None:
    edit_config(folder, lambda config: config.update(architectures=[name]))
    with pytest.raises(UnsupportedArchitectureError, match=name):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("image_token_id"),
        lambda config: config["text_config"].pop("hidden_size"),
        lambda config: config["text_config"].update(hidden_act="gelu"),
        lambda config: config["text_config"].update(vocab_size="many"),
        lambda config: config["text_config"]["rope_parameters"].update(mrope_section=[1, 1, 1]),
        lambda config: config["text_config"]["rope_parameters"].update(rope_type="yarn"),
        lambda config: config["vision_config"].update(num_heads=5),
    ],
)
def test_a_config_without_sense_is_refused(folder: Path, change: Callable[[dict], None]) -> None:
    edit_config(folder, change)
    with pytest.raises(CorruptFileError, match=r"config\.json"):
        load_model(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    name = "model.visual.blocks.1.attn.qkv.weight"
    edit_weights(folder, lambda weights: weights.pop(name))
    with pytest.raises(WeightsMismatchError, match=rf"{WEIGHTS}: 1 tensors are missing: {name}"):
        load_model(folder)


def test_an_unknown_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({"model.extra.weight": torch.ones(2)}))
    with pytest.raises(WeightsMismatchError, match=r"model\.extra\.weight"):
        load_model(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({"lm_head.weight": torch.ones(2, 3)}))
    with pytest.raises(WeightsMismatchError, match=r"lm_head\.weight is \[2, 3\]"):
        load_model(folder)


def test_quantized_weights_are_refused(folder: Path) -> None:
    edit_weights(
        folder,
        lambda weights: weights.update(
            {"lm_head.weight": torch.ones_like(weights["lm_head.weight"], dtype=torch.int8)}
        ),
    )
    with pytest.raises(WeightsMismatchError, match="int8"):
        load_model(folder)


def test_a_sharded_checkpoint_is_the_same_model(folder: Path) -> None:
    expected = load_model(folder).state_dict()
    _shard(folder)
    got = load_model(folder).state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_a_missing_shard_is_named(folder: Path) -> None:
    _shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingFileError, match="model-00002-of-00002"):
        load_model(folder)


def test_an_index_that_leaves_the_folder_is_refused(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match="outside"):
        load_model(folder)


def _shard(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    files = {}
    for at, part in enumerate((names[:20], names[20:]), start=1):
        file = f"model-0000{at}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        files.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / WEIGHTS).unlink()


def test_the_older_layout_of_names_is_the_same_model(folder: Path) -> None:
    expected = load_model(folder).state_dict()

    def older(name: str) -> str:
        name = name.replace("model.language_model.", "model.")
        return name.replace("model.visual.", "visual.")

    weights = {older(name): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)  # derived, not needed
    save_file(weights, folder / WEIGHTS)
    got = load_model(folder).state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_today_s_names_stay_as_they_are() -> None:
    for name in ("model.visual.a", "model.language_model.layers.0.b", "lm_head.weight"):
        assert canonical_name(name) == name


def test_tied_weights_are_one_tensor_and_need_no_head_in_the_file(folder: Path) -> None:
    edit_config(folder, lambda config: config.update(tie_word_embeddings=True))
    edit_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    model = load_model(folder)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("tokenizer.json", TextTokenizer.from_folder),
        ("preprocessor_config.json", ImageProcessor.from_folder),
    ],
)
@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff\xfe"])
def test_a_broken_small_file_is_named(folder: Path, name: str, read, content) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read(folder)


def test_a_preprocessor_config_without_sense_is_named(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"image_mean": "grey"}')
    with pytest.raises(CorruptFileError, match=r"preprocessor_config\.json"):
        ImageProcessor.from_folder(folder)


def test_a_folder_without_a_chat_template_says_so(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(MissingFileError, match=r"chat_template\.jinja"):
        ChatTemplate.from_folder(folder)


def test_a_chat_template_that_does_not_compile_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(CorruptFileError, match=r"chat_template\.jinja"):
        ChatTemplate.from_folder(folder)
