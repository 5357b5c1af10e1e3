"""Installing: what is remembered, and which build of torch is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import bootstrap


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a checkout with locks and a .venv that looks made."""
    (tmp_path / "requirements").mkdir()
    for level in bootstrap.LEVELS:
        (tmp_path / "requirements" / f"{level}.lock").write_text("torch==2.13.0\nx==1 ; a == 'b'\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", python)
    return tmp_path


def installed(level: str) -> None:
    bootstrap.stamp(level).write_text(bootstrap.digest(level))


def test_nothing_is_ready_before_it_is_installed(folder: Path) -> None:
    assert not bootstrap.is_ready("engine")


def test_what_is_installed_is_not_installed_again(folder: Path) -> None:
    installed("engine")
    bootstrap.install("engine", "auto")  # would fail: the folder's Python is an empty file


def test_the_tests_tools_hold_what_serving_needs_but_not_the_reverse(folder: Path) -> None:
    installed("dev")
    assert bootstrap.is_ready("engine")
    bootstrap.stamp("dev").unlink()
    installed("engine")
    assert not bootstrap.is_ready("dev")


@pytest.mark.parametrize("changed", ["requirements/dev.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_file_installs_anew(folder: Path, changed: str) -> None:
    installed("dev")
    (folder / changed).write_text("changed")
    assert not bootstrap.is_ready("dev")


def test_a_lock_that_is_not_of_this_level_changes_nothing(folder: Path) -> None:
    installed("dev")
    (folder / "requirements" / "api.lock").write_text("changed")
    assert bootstrap.is_ready("dev")


def test_a_pin_is_read_without_its_marker(folder: Path) -> None:
    lock = folder / "requirements" / "dev.lock"
    assert bootstrap.pinned(lock, "torch") == "2.13.0"
    assert bootstrap.pinned(lock, "x") == "1"
    assert bootstrap.pinned(lock, "y") is None


@pytest.mark.parametrize(
    ("needs", "cuda"),
    [
        (["filelock", "sympy>=1.13"], False),
        (["filelock", 'nvidia-cublas==13.1; platform_system == "Linux"'], True),
        (["cuda-bindings<14"], True),
        (["triton==3.7"], True),
        (['nvidia-x==1; extra == "gpu"'], False),
        (None, False),
    ],
)
def test_a_build_with_cuda_packages_is_known_by_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, needs: list[str] | None, cuda: bool
) -> None:
    def report(*arguments: str) -> None:
        target = Path(arguments[arguments.index("--report") + 1])
        target.write_text(json.dumps({"install": [{"metadata": {"requires_dist": needs}}]}))

    monkeypatch.setattr(bootstrap, "pip", report)
    assert bootstrap.brings_cuda("torch==2.13.0") is cuda


@pytest.mark.parametrize(
    ("choice", "linux", "gpu", "cuda", "from_cpu_index"),
    [
        ("auto", True, False, True, True),
        ("auto", True, False, False, False),
        ("auto", True, True, True, False),
        ("auto", False, False, True, False),
        ("cpu", True, True, True, True),
        ("default", True, False, True, False),
    ],
)
def test_the_cpu_index_is_asked_only_where_it_saves_cuda_packages(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
    linux: bool,
    gpu: bool,
    cuda: bool,
    from_cpu_index: bool,
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(bootstrap, "torch_is_installed", lambda _: False)
    monkeypatch.setattr(bootstrap, "is_linux", lambda: linux)
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(bootstrap, "brings_cuda", lambda _: cuda)
    monkeypatch.setattr(bootstrap, "pip", lambda *arguments: calls.append(arguments))
    bootstrap.install_torch("2.13.0", choice)
    assert [bootstrap.CPU_WHEELS in call for call in calls] == [from_cpu_index]


def test_when_the_cpu_index_is_out_of_reach_the_usual_build_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> None:
        calls.append(arguments)
        if bootstrap.CPU_WHEELS in arguments:
            raise bootstrap.subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(bootstrap, "torch_is_installed", lambda _: False)
    monkeypatch.setattr(bootstrap, "brings_cuda", lambda _: True)
    monkeypatch.setattr(bootstrap, "pip", pip)
    bootstrap.install_torch("2.13.0", "cpu")
    assert [bootstrap.CPU_WHEELS in call for call in calls] == [True, False]
    assert "CUDA packages" in capsys.readouterr().out
