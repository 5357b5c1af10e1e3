"""Which tokens end an answer."""

from __future__ import annotations

from pathlib import Path

from forebay.models.files import read_json
from forebay.models.glm4v.config import TextConfig

GENERATION_FILE = "generation_config.json"


def stop_ids_of(folder: Path, config: TextConfig) -> frozenset[int]:
    """Return the ids that end an answer: generation_config.json's, else config.json's.

    Raises:
        CorruptFileError: generation_config.json is no JSON.
    """
    path = folder / GENERATION_FILE
    found = read_json(path).get("eos_token_id") if path.is_file() else None
    if found is None:
        return frozenset(config.eos_token_ids)
    return frozenset(map(int, found)) if isinstance(found, list) else frozenset((int(found),))
