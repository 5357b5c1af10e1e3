"""The GPU suite on a bare machine: what is missing is installed from a folder, or named."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from scripts import gpu_wheels

ROOT = Path(__file__).parents[2]


def write_wheel(folder: Path, package: str) -> None:
    folder.mkdir(exist_ok=True)
    about = f"{package}-1.0.dist-info"
    files = {
        f"{package}.py": "here = True\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        record += f"{name},sha256={digest.rstrip('=')},{len(text)}\n"
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{about}/RECORD", record + f"{about}/RECORD,,\n")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gpu_wheels, "WHEELS", tmp_path / "wheels")
    return tmp_path / "wheels"


def test_a_missing_package_is_installed_from_the_folder(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(wheels, "forebay_absent")
    monkeypatch.setattr(
        gpu_wheels, "NEEDED", {"numpy": "numpy", "forebay_absent": "forebay-absent"}
    )
    assert gpu_wheels.missing() == ["forebay-absent"]
    gpu_wheels.install(tmp_path / "site")
    assert (tmp_path / "site" / "forebay_absent.py").is_file()
    assert gpu_wheels.missing() == []


def test_what_is_missing_and_not_in_the_folder_is_named(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(wheels, "forebay_absent")
    needed = {"forebay_absent": "forebay-absent", "forebay_gone": "forebay-gone"}
    monkeypatch.setattr(gpu_wheels, "NEEDED", needed)
    with pytest.raises(SystemExit, match=r"missing here: forebay-gone\. .*gpu-wheels.*wheels/"):
        gpu_wheels.install(tmp_path / "site")


def test_every_import_of_the_suite_is_among_the_needed() -> None:
    """Else the suite would end in the middle, on a machine that is lent for minutes."""
    modules = ["tests.engine.test_gpu", "tests.engine.test_gpu_quantized", "bench.gpu"]
    modules += ["tests.engine.test_gpu_ops", "tests.engine.test_gpu_execution"]
    program = f"""
import importlib, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        known = name.partition(".")[0]
        if known in {set(UNUSED)!r}:
            raise AssertionError(f"{{name}} is imported")
sys.meta_path.insert(0, Refused())
for name in {modules!r}:
    importlib.import_module(name)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=environment)


UNUSED = {
    "structlog", "pydantic", "pydantic_settings", "redis", "fastapi", "starlette", "uvicorn",
    "prometheus_client", "pytest_asyncio", "openai", "playwright",
}  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_suite_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    write_wheel(tmp_path / "site", "triton")  # is found, and not imported
    with zipfile.ZipFile(tmp_path / "site" / "triton-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path / "site")}
    ran = subprocess.run(
        ["sh", "scripts/gpu_suite.sh", str(tmp_path / "out")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "no CUDA device" in ran.stderr
