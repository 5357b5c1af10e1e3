"""What the door must know of the model: read from the checkpoint's JSON files, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay.core.image_grid import GridRules
from forebay.core.template_files import CONFIG_FILES, TEMPLATE_FILE, has_tools, template_in


class ProfileError(Exception):
    """A folder from which the door cannot learn the model; the message names the file."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A served model. ``name`` is told to clients, ``aliases`` are understood as well.

    ``calls``: it can be offered functions to call.
    """

    name: str
    aliases: tuple[str, ...]
    rules: GridRules
    context_tokens: int
    calls: bool = False

    @classmethod
    def from_folder(cls, folder: Path, name: str, aliases: tuple[str, ...] = ()) -> ModelProfile:
        """Read ``config.json`` and ``preprocessor_config.json``.

        Raises:
            ProfileError: a file is missing, not JSON, or lacks what is needed.
        """
        config_path, processor_path = folder / "config.json", folder / "preprocessor_config.json"
        config = _read(config_path)
        text = config.get("text_config") or config
        try:
            context = int(text["max_position_embeddings"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"{config_path}: no usable max_position_embeddings") from error
        try:
            rules = GridRules.from_preprocessor(_read(processor_path))
        except (TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"{processor_path}: a field is wrong: {error}") from error
        return cls(name, aliases, rules, context, has_tools(_template(folder)))

    def knows(self, name: str) -> bool:
        """Whether a client means this model by ``name``."""
        return name == self.name or name in self.aliases


def _template(folder: Path) -> str:
    """Return the chat template, "" where there is none: the worker will say so."""
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    configs = (folder / name for name in CONFIG_FILES)
    found = (template_in(_read(path)) for path in configs if path.is_file())
    return next((source for source in found if source is not None), "")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ProfileError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ProfileError(f"{path}: expected a JSON object at the top level")
    return content
