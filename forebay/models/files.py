"""Reading a checkpoint folder's small files with errors that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forebay.models.errors import CorruptFileError, MissingFileError


def require_file(folder: Path, name: str) -> Path:
    """Return ``folder/name``.

    Raises:
        MissingFileError: the folder or the file is not there.
    """
    if not folder.is_dir():
        raise MissingFileError(folder, "no such checkpoint folder; give the path of one")
    path = folder / name
    if not path.is_file():
        raise MissingFileError(
            path, "missing from the checkpoint; download the complete checkpoint folder again"
        )
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptFileError: the file is not JSON, or its top level is not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(path, f"not valid JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise CorruptFileError(path, "expected a JSON object at the top level")
    return content
