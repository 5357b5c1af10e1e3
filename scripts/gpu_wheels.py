"""Packages for the GPU suite on a machine without a network: fetched here, installed there.

    python -m scripts.gpu_wheels fetch [PACKAGE...]   # into wheels/, which git ignores
    python -m scripts.gpu_wheels install FOLDER       # what is missing, from wheels/ into FOLDER

Standard library only: the machine may lack everything but Python, pip and torch. It names what is
missing and cannot be installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.bootstrap import ROOT, pinned

WHEELS = ROOT / "wheels"
LOCK = ROOT / "requirements" / "dev.lock"
NEEDED = {
    "torch": "torch",
    "triton": "triton",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "jinja2": "jinja2",
    "PIL": "pillow",
    "llguidance": "llguidance",
    "transformers": "transformers",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}
"""Packages by what they are imported as."""

RARE = ("llguidance",)
"""What images made for machine learning lack: fetched where no package is named."""

PYTHONS = ("3.11", "3.12")
GLIBC_MINORS = range(35, 16, -1)
PLATFORMS = (*(f"manylinux_2_{minor}" for minor in GLIBC_MINORS), "manylinux2014", "manylinux1")
"""Asked for by name: pip takes each literally, not as the newest that will do."""

PIP_TIMEOUT_S = 600


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    fetching = verbs.add_parser("fetch")
    fetching.add_argument("packages", nargs="*", help=f"default: {' '.join(RARE)}")
    installing = verbs.add_parser("install")
    installing.add_argument("folder", type=Path, help="where the missing packages go")
    arguments = parser.parse_args()
    if arguments.verb == "fetch":
        fetch(arguments.packages or RARE)
    else:
        install(arguments.folder)


def fetch(packages: Sequence[str]) -> None:
    """Put x86-64 wheels for Linux into ``WHEELS``, of the locked versions where there are such."""
    versions = {name: pinned(LOCK, name) for name in packages}
    wanted = [
        name if version is None else f"{name}=={version}" for name, version in versions.items()
    ]
    platforms = [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    for python in PYTHONS:
        pip(
            *("download", "--quiet", "--only-binary", ":all:", "--no-deps", "--dest", str(WHEELS)),
            *("--implementation", "cp", "--python-version", python, *platforms, *wanted),
        )
    size = sum(file.stat().st_size for file in WHEELS.glob("*.whl"))
    print(f"{WHEELS}: {size / 2**20:.0f} MiB")


def install(folder: Path) -> None:
    """Install what is missing from ``WHEELS`` into ``folder``.

    Raises:
        SystemExit: naming what is still missing, and what to do.
    """
    names = [name for name in missing() if any(WHEELS.glob(f"{name.replace('-', '_')}-*.whl"))]
    if names:
        pip(
            *("install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--find-links"),
            *(str(WHEELS), "--target", str(folder), *names),
        )
        print(f"from {WHEELS.name}/: {' '.join(names)}")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    if lacking := missing():
        raise SystemExit(
            f"missing here: {', '.join(lacking)}. Install them; or, where there is a network, run "
            f"make gpu-wheels ARGS='{' '.join(lacking)}' and bring the folder {WHEELS.name}/ along"
        )


def missing() -> list[str]:
    """Return the packages of ``NEEDED`` that this Python cannot import."""
    return [package for name, package in NEEDED.items() if importlib.util.find_spec(name) is None]


def pip(*arguments: str) -> None:
    """Run this Python's pip. Raises SystemExit: it failed; it has said why."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    command = [sys.executable, "-m", "pip", *arguments]
    ran = subprocess.run(command, check=False, timeout=PIP_TIMEOUT_S, env=environment)
    if ran.returncode != 0:
        raise SystemExit(f"this command failed ({ran.returncode}): {' '.join(command)}")


if __name__ == "__main__":
    main()
