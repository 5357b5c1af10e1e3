"""Writes a checkpoint folder in the Hugging Face layout: ``python -m training.export``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from forebay.models.processor import CLIP_MEAN, CLIP_STD
from training import shape
from training.data import MERGE, PATCH, the_tokenizer
from training.tokenizer import CHAT_TEMPLATE, SPECIAL


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def export(weights: dict[str, Tensor], folder: Path) -> None:
    """Write weights (as bfloat16) and every configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**shape.config(), "dtype": "bfloat16"}
    _write(folder / "config.json", config)
    eos = config["text_config"]["eos_token_id"]
    _write(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": eos, "pad_token_id": eos[0]},
    )
    _write(folder / "preprocessor_config.json", _preprocessor("Glm4vImageProcessor"))
    _write(folder / "video_preprocessor_config.json", _video())
    tokenizer = the_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _tokenizer_config())
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in weights.items()}
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def _preprocessor(kind: str) -> dict[str, Any]:
    return {
        "image_processor_type": kind, "processor_class": "Glm4vProcessor", "size": shape.SIZE,
        "patch_size": PATCH, "temporal_patch_size": 2, "merge_size": MERGE, "do_resize": True,
        "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
        "rescale_factor": 1 / 255, "resample": 3, "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }  # fmt: skip


def _video() -> dict[str, Any]:
    """The architecture's processor wants this file; the demo model was never shown a video."""
    raw = _preprocessor("")
    del raw["image_processor_type"]
    return {**raw, "video_processor_type": "Glm4vVideoProcessor"}


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>", "padding_side": "left", "model_max_length": 8192,
        "clean_up_tokenization_spaces": False, "processor_class": "Glm4vProcessor",
        "additional_special_tokens": list(SPECIAL), "image_token": "<|image|>",
        "video_token": "<|video|>",
    }  # fmt: skip


def main() -> None:
    """Export the averaged (or the last) weights of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--to", type=Path, default=Path("forebay/demo_model"))
    parser.add_argument("--weights", choices=("average", "model"), default="average")
    options = parser.parse_args()
    state = torch.load(options.run / "state.pt", map_location="cpu", weights_only=True)
    export(state[options.weights], options.to)
    print(f"step {state['steps']}, {state['pictures']} pictures, {state['seconds'] / 60:.1f} min")


if __name__ == "__main__":
    main()
