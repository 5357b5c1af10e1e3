"""Make ``.venv`` hold what a make target needs; standard library only, run by the system's Python.

``bootstrap.py engine`` is enough to serve and for the demo, ``bootstrap.py dev`` adds the tests'
tools. What is installed is remembered beside the virtual environment under a digest of the locks,
so a second run does nothing. PyTorch needs a choice that a lock cannot express: on Linux without
an NVIDIA GPU its CPU build is taken, since the usual one brings gigabytes of CUDA packages.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
OLDEST_PYTHON = (3, 11)
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
LEVELS = ("api", "engine", "dev")
"""What can be installed, each holding what is before it."""
PIP_TIMEOUT_S = 3600
GPU_PACKAGES = re.compile(r"^(nvidia|cuda|triton)[-_a-z0-9]*", re.IGNORECASE)


class BootstrapError(Exception):
    """The environment cannot be made; the message says the mend."""


def main() -> None:
    """Install the level named on the command line, unless it is there already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("level", choices=LEVELS)
    parser.add_argument("--torch", choices=("auto", "cpu", "default"), default="auto")
    arguments = parser.parse_args()
    try:
        with one_at_a_time():
            install(arguments.level, arguments.torch)
    except BootstrapError as error:
        sys.exit(f"make: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"make: this command failed ({error.returncode}): {' '.join(error.cmd)}")


def install(level: str, torch_choice: str) -> None:
    """Bring ``.venv`` to ``level``. Raises BootstrapError or CalledProcessError."""
    if is_ready(level):
        return
    make_venv()
    lock = ROOT / "requirements" / f"{level}.lock"
    torch = pinned(lock, "torch")
    if torch is not None:
        install_torch(torch, torch_choice)
    say(f"installing {lock.relative_to(ROOT)}")
    pip("install", "--quiet", "-r", str(lock))
    build = ["--no-build-isolation"] if pinned(lock, "setuptools") else []
    pip("install", "--quiet", "--no-deps", *build, "--editable", str(ROOT))
    stamp(level).write_text(digest(level), encoding="utf-8")
    say(f"ready ({level}): {VENV.relative_to(ROOT)}")


def is_ready(level: str) -> bool:
    """Whether this level, or one that holds it, was installed from the files as they are now."""
    if not VENV_PYTHON.exists():
        return False
    levels = LEVELS[LEVELS.index(level) :]
    return any(
        stamp(one).exists() and stamp(one).read_text(encoding="utf-8") == digest(one)
        for one in levels
    )


def stamp(level: str) -> Path:
    """Return the file that remembers an installed level."""
    return VENV / f".ready-{level}"


def digest(level: str) -> str:
    """Return a digest of what decides the installed packages, this Python's version included."""
    found = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for file in (ROOT / "requirements" / f"{level}.lock", ROOT / "pyproject.toml"):
        found.update(file.read_bytes())
    return found.hexdigest()


def make_venv() -> None:
    """Create ``.venv``; one whose Python is another version, or gone, is made anew."""
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        raise BootstrapError(
            f"Python {wanted} or newer is needed, this is {platform.python_version()}; "
            "install it, or name one: make PYTHON=/path/to/python3"
        )
    if VENV.exists() and venv_version() == sys.version_info[:2]:
        return
    say(f"making .venv with Python {platform.python_version()}")
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(VENV, ignore_errors=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise BootstrapError(
            "this Python cannot make a virtual environment with pip; "
            f"on Debian and Ubuntu: apt-get install python{version}-venv"
        ) from error


def venv_version() -> tuple[int, int] | None:
    """Return the (major, minor) of the Python in ``.venv``; None when it does not run."""
    command = [str(VENV_PYTHON), "-c", "import pip, sys; print(*sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def pinned(lock: Path, package: str) -> str | None:
    """Return the version that a lock pins for ``package``."""
    found = re.search(rf"^{package}==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def install_torch(version: str, choice: str) -> None:
    """Install torch itself, in the build that suits this machine."""
    if torch_is_installed(version):
        return
    requirement = f"torch=={version}"
    wants_cpu = choice == "cpu" or (choice == "auto" and is_linux() and not has_nvidia_gpu())
    if not wants_cpu or not brings_cuda(requirement):
        say(f"installing {requirement}")
        pip("install", "--quiet", requirement)
        return
    say(f"installing the CPU build of {requirement} (no NVIDIA GPU here)")
    try:
        pip("install", "--quiet", "--index-url", CPU_WHEELS, "--no-deps", requirement)
    except subprocess.CalledProcessError:
        say(f"{CPU_WHEELS} does not answer: taking the usual build, with its CUDA packages")
        pip("install", "--quiet", requirement)


def torch_is_installed(version: str) -> bool:
    """Whether ``.venv`` has that version of torch, whichever build."""
    code = "from importlib.metadata import version; print(version('torch').split('+')[0])"
    command = [str(VENV_PYTHON), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip() == version


def is_linux() -> bool:
    """Whether this is Linux, the only system whose usual torch brings CUDA packages."""
    return sys.platform == "linux"


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver with a device is there."""
    return Path("/dev/nvidiactl").exists() or any(Path("/proc/driver/nvidia/gpus").glob("*"))


def brings_cuda(requirement: str) -> bool:
    """Whether the build that pip would choose needs CUDA packages; asks without downloading it."""
    with tempfile.TemporaryDirectory(prefix="forebay-torch-") as folder:
        report = Path(folder) / "report.json"
        try:
            pip(
                *("install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"),
                *("--report", str(report), requirement),
            )
        except subprocess.CalledProcessError:
            return True
        needs = json.loads(report.read_text(encoding="utf-8"))["install"][0]["metadata"]
    return any(
        GPU_PACKAGES.match(need) and "extra ==" not in need
        for need in needs.get("requires_dist") or ()
    )


def pip(*arguments: str) -> None:
    """Run the virtual environment's pip. Raises CalledProcessError."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    command = [str(VENV_PYTHON), "-m", "pip", *arguments]
    subprocess.run(command, check=True, timeout=PIP_TIMEOUT_S, env=environment)


def say(text: str) -> None:
    """Tell what is being done; an install is minutes long."""
    print(f"[setup] {text}", flush=True)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold a lock file, so that two make commands at once do not build one environment twice."""
    with (ROOT / ".ready-lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
