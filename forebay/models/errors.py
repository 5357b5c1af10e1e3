"""What can be wrong with a checkpoint folder, and with how it is asked for.

Every message says the mend.
"""

from __future__ import annotations

from pathlib import Path


class CheckpointError(Exception):
    """A checkpoint folder cannot be served; ``path`` is the file at fault."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class UnsupportedArchitectureError(CheckpointError):
    """The checkpoint is whole, but it is another model than Glm4v / Glm46V."""


class MissingFileError(CheckpointError):
    """A file that the checkpoint needs is not there."""


class CorruptFileError(CheckpointError):
    """A file is there but cannot be read as what its name says (truncated, not JSON, ...)."""


class WeightsMismatchError(CheckpointError):
    """The weights are not those that ``config.json`` describes (missing, extra, wrong shape)."""


class QuantizationError(Exception):
    """The quantization that was asked for does not run on this machine; the message says why."""
