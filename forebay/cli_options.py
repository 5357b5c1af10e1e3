"""Options that several commands have, and the settings that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forebay.config import Settings, SettingsError, load_settings

QueueUrl = Annotated[str | None, typer.Option(help="URL of a Valkey or Redis; default: our own.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the queue, pictures and logs.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Any setting, as key=value; repeatable.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_of(sets: list[str] | None, **flags: Any) -> Settings:
    """Return the settings; a flag that is None was not given. Raises SettingsError."""
    for one in sets or []:
        key, sign, value = one.partition("=")
        if not sign:
            raise SettingsError(f"--set takes key=value, got {one!r}")
        flags[key.strip()] = value.strip()
    return load_settings(**flags)
