"""From a Hugging Face checkpoint folder to a model in memory.

Source of the names: Glm4v in Hugging Face ``transformers``, and the layouts that came before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from forebay.models.errors import CorruptFileError, WeightsMismatchError
from forebay.models.files import read_json, require_file
from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.quantization import EMBEDDING, HEAD, Quantization, replace_layers

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_OLDER_PREFIXES = (
    ("visual.", "model.visual."),
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.layers.", "model.language_model.layers."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.norm.", "model.language_model.norm."),
)
_DERIVED_SUFFIX = "rotary_emb.inv_freq"
_NAMES_SHOWN = 3


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    quantization: Quantization = Quantization.NONE,
) -> Glm4vModel:
    """Load a checkpoint folder, whatever floating type its files have, to answer with it.

    The model is joined (see :meth:`Glm4vModel.join`). Where it is quantized, each tensor is as it
    is read: at no time are more than two of them in memory at their full width.

    Args:
        folder: a Hugging Face checkpoint folder.
        dtype: the floating type of what is not quantized.
        device: where the model is to be.
        quantization: ``NONE``, ``INT8`` or ``FP8``.

    Raises:
        MissingFileError: a file is not there.
        CorruptFileError: a file is truncated or not what its name says.
        UnsupportedArchitectureError: the checkpoint is of another model family.
        WeightsMismatchError: tensors are missing, unknown, or of another shape than the
            configuration states.
    """
    config = Glm4vConfig.from_folder(folder)
    with torch.device("meta"):
        model = Glm4vModel(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    conversions = replace_layers(model, quantization, dtype, torch.device(device))
    found: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        for name, tensor in _read(path):
            _check(path, name, tensor, wanted)
            if name in conversions:
                found.update(conversions[name](tensor, device))
            else:
                found[name] = tensor.to(device=device, dtype=dtype)
    if config.tie_word_embeddings:
        _tie(found)
    _check_complete(folder, found, wanted)
    model.load_state_dict(found, assign=True)
    if config.tie_word_embeddings and f"{HEAD}.weight" not in conversions:
        model.lm_head.weight = model.model.language_model.embed_tokens.weight
    model.requires_grad_(False).eval().join()
    return model


def _tie(found: dict[str, Tensor]) -> None:
    """Make the head's tensors those of the embedding table, where that was read."""
    for part in ("weight", "scale"):
        if f"{EMBEDDING}.{part}" in found:
            found[f"{HEAD}.{part}"] = found[f"{EMBEDDING}.{part}"]


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / INDEX_FILE).is_file():
        return [require_file(folder, SINGLE_FILE)]
    index_path = folder / INDEX_FILE
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptFileError(index_path, "has no weight_map; download it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise CorruptFileError(index_path, f"names a file outside of its folder: {name!r}")
    return [require_file(folder, name) for name in names]


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
                if not name.endswith(_DERIVED_SUFFIX):
                    yield canonical_name(name), file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(
            path, f"not a whole safetensors file ({error}); download it again"
        ) from error


def canonical_name(name: str) -> str:
    """Return today's name of a tensor that may have one of the older prefixes."""
    for old, new in _OLDER_PREFIXES:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _check(path: Path, name: str, tensor: Tensor, wanted: Mapping[str, torch.Size]) -> None:
    if name not in wanted:
        raise WeightsMismatchError(path, f"holds a tensor the model does not have: {name}")
    if tensor.shape != wanted[name]:
        raise WeightsMismatchError(
            path,
            f"{name} is {list(tensor.shape)}, config.json makes it {list(wanted[name])}",
        )
    if not tensor.is_floating_point():
        raise WeightsMismatchError(
            path, f"{name} is {tensor.dtype}; quantized checkpoints are not read, give floats"
        )


def _check_complete(
    folder: Path, found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]
) -> None:
    missing = sorted(set(wanted) - set(found))
    if not missing:
        return
    names = ", ".join(missing[:_NAMES_SHOWN]) + (" ..." if len(missing) > _NAMES_SHOWN else "")
    path = folder / (INDEX_FILE if (folder / INDEX_FILE).is_file() else SINGLE_FILE)
    raise WeightsMismatchError(path, f"{len(missing)} tensors are missing: {names}")
