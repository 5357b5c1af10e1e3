"""The folder of everything that outlives a process."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator

from forebay.config.group import SettingsGroup


def default_data_dir() -> Path:
    """Return the folder for state that outlives a process (XDG state home)."""
    state_home = os.environ.get("XDG_STATE_HOME")
    base = Path(state_home) if state_home else Path.home() / ".local" / "state"
    return base / "forebay"


class FolderSettings(SettingsGroup):
    """Where state lies on this machine."""

    data_dir: Path = Field(
        default_factory=default_data_dir, description="Folder of the queue, pictures and logs."
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def files_dir(self) -> Path:
        """Folder of uploaded files and of batches' outputs."""
        return self.data_dir / "files"

    @property
    def batches_dir(self) -> Path:
        """Folder of what running batches need."""
        return self.data_dir / "batches"

    @property
    def queue_dir(self) -> Path:
        """Folder of the private queue server."""
        return self.data_dir / "queue"

    @property
    def run_dir(self) -> Path:
        """Folder of status files and logs of the running processes."""
        return self.data_dir / "run"
