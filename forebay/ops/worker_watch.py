"""How often the workers of this machine's stack began anew, told by their status files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".status.json"


class RestartCounter:
    """Counts, for each worker of a run folder, the changes of its process since the first look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: dict[str, int] = {}

    def look(self) -> dict[str, int]:
        """Return by worker how many times it began anew since the last look: 0 for the others."""
        found = {}
        for file in self._folder.glob(f"*{_SUFFIX}"):
            pid = _pid(file)
            if pid is None:
                continue
            name = file.name.removesuffix(_SUFFIX)
            found[name] = int(self._pids.get(name, pid) != pid)
            self._pids[name] = pid
        return found


def _pid(file: Path) -> int | None:
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return None  # it is being written, or is none of ours
