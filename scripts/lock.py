"""Write ``requirements/*.lock`` from ``pyproject.toml``: ``make lock``.

Each lock holds for every platform (markers where a package is for some only). Versions already in
a lock are kept unless ``--upgrade`` is given. No hashes: a CPU build of torch (``2.13.0+cpu``) has
the same version and another file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "dev.lock": ["dev"],
    "engine.lock": ["engine"],
    "api.lock": [],
}
"""File -> extras. The first is solved freely, the others are held to it."""
TOOL = "uv==0.13.8"
COMMAND = "make lock"
TIMEOUT_S = 600


def install_tool(folder: str) -> None:
    """Put the resolver into a folder that is thrown away afterwards."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, TOOL]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)


def compile_lock(tool: Path, name: str, extras: list[str], *, upgrade: bool) -> None:
    """Solve one lock in place."""
    target = ROOT / "requirements" / name
    command = [str(tool), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--config-file", "scripts/torch-metadata.toml", "--fork-strategy", "fewest"]
    command += ["--no-annotate", "--custom-compile-command", COMMAND]
    command += [argument for extra in extras for argument in ("--extra", extra)]
    command += ["--upgrade"] if upgrade else []
    if name != "dev.lock":
        command += ["--constraints", "requirements/dev.lock"]
    command += ["--output-file", str(target.relative_to(ROOT)), "pyproject.toml"]
    environment = {**os.environ}
    if "PIP_CERT" in environment:
        environment.setdefault("SSL_CERT_FILE", environment["PIP_CERT"])
    subprocess.run(command, check=True, timeout=TIMEOUT_S, cwd=ROOT, env=environment)


def main() -> None:
    """Write every lock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = parser.parse_args().upgrade
    (ROOT / "requirements").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="forebay-lock-") as folder:
        install_tool(folder)
        for name, extras in LOCKS.items():
            compile_lock(Path(folder) / "bin" / "uv", name, extras, upgrade=upgrade)
            print(f"requirements/{name} written")


if __name__ == "__main__":
    main()
