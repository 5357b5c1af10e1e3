"""Writes the two random checkpoints that every engine is measured on: ``tiny`` and ``small``.

    python -m bench.checkpoints FOLDER

Random weights say noise, but cost what trained ones cost. The weights are a function of the seed
and of each tensor's name, the tokenizer is trained on Python's own standard library, and the
folders are whole: Forebay, transformers and vLLM load them as they are.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.checkpoints import (
    CHAT_TEMPLATE,
    STOP_TOKENS,
    Shape,
    config_dict,
    preprocessor,
    random_weights,
)

VOCABULARY = 8192
SPECIAL = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>",
    "<|assistant|>", "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>",
    "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>",
)  # fmt: skip
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TRAINING_FILES = 250

TINY = Shape(
    hidden_size=256,
    intermediate_size=832,
    layers=6,
    heads=8,
    mrope_section=(2, 3, 3),
    context=32768,
    vision_depth=4,
    vision_hidden=192,
    vision_heads=3,
    vision_intermediate=832,
    image_size=336,
    min_pixels=112 * 112,
    max_pixels=28 * 28 * 15000,
)
"""11 million parameters."""

SMALL = Shape(
    hidden_size=768,
    intermediate_size=2560,
    layers=14,
    heads=12,
    mrope_section=(4, 6, 6),
    context=32768,
    vision_depth=12,
    vision_hidden=512,
    vision_heads=8,
    vision_intermediate=2560,
    image_size=336,
    min_pixels=112 * 112,
    max_pixels=28 * 28 * 15000,
)
"""150 million parameters, 36 million of them in the vision tower."""

SHAPES = {"tiny": TINY, "small": SMALL}


def checkpoint_folder(home: Path, name: str) -> Path:
    """Return where the checkpoint ``tiny`` or ``small`` lies, written on the first call."""
    folder = home / f"{name}-glm4v"
    if not (folder / "model.safetensors").is_file():
        write_checkpoint(folder, SHAPES[name])
    return folder


def write_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> None:
    """Write a whole checkpoint folder, weights (the last file written) in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    config = {**config_dict(shape, tokenizer), "dtype": "bfloat16"}
    stop_ids = [tokenizer.token_to_id(token) for token in STOP_TOKENS]
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(shape))
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": stop_ids, "pad_token_id": stop_ids[0]},
    )
    _write_json(folder / "preprocessor_config.json", _pictures(shape))
    _write_json(folder / "video_preprocessor_config.json", _videos(shape))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    weights = {
        name: weight.to(torch.bfloat16) for name, weight in random_weights(config, seed).items()
    }
    partial = folder / "model.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")


def train_tokenizer() -> Tokenizer:
    """Train byte-level BPE of ``VOCABULARY`` tokens on the standard library's source files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer


def _texts() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py"))[:_TRAINING_FILES]:
        yield path.read_text(encoding="utf-8", errors="replace")


def _tokenizer_config(shape: Shape) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "padding_side": "left",  # answers of a batch begin at one place
        "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False,
        "processor_class": "Glm4vProcessor",
        "additional_special_tokens": list(SPECIAL),
        "image_token": "<|image|>",
        "video_token": "<|video|>",
    }


def _pictures(shape: Shape) -> dict[str, Any]:
    return {**preprocessor(shape), "processor_class": "Glm4vProcessor"}


def _videos(shape: Shape) -> dict[str, Any]:
    """Return what the architecture's processor insists on; no video is ever sent."""
    raw = _pictures(shape)
    del raw["image_processor_type"]
    return {**raw, "video_processor_type": "Glm4vVideoProcessor"}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Write both checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    for name in SHAPES:
        print(checkpoint_folder(options.folder, name))


if __name__ == "__main__":
    main()
