"""The settings of logs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from forebay.config.group import SettingsGroup
from forebay.log_file import LogFileTerms


class LogSettings(SettingsGroup):
    """What is logged, where, and for how long it is kept."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`auto`: lines for people on a terminal, JSON elsewhere."
    )
    log_file: Path | None = Field(
        None,
        description="File for the log, the process's name added before its ending, so that each "
        "has its own; unset: standard error.",
    )
    log_file_bytes: int = Field(
        50 * 2**20, ge=0, description="Size at which such a file is turned over; 0: at none."
    )
    log_file_s: float = Field(
        86_400.0, ge=0, description="Time after which it is, reckoned from midnight UTC; 0: never."
    )
    log_file_keep: int = Field(
        7, ge=0, le=1000, description="Older files of a process that are kept."
    )

    @field_validator("log_file")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        file = value.expanduser().absolute()
        if file.is_dir():
            raise ValueError("is a folder; name a file in it, such as forebay.log")
        return file

    def log_file_terms(self) -> LogFileTerms | None:
        """Return where the log goes; None: to standard error."""
        if self.log_file is None:
            return None
        return LogFileTerms(self.log_file, self.log_file_bytes, self.log_file_s, self.log_file_keep)
