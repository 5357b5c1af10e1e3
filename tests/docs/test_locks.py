"""The locks pin everything, for every platform, and name no place but the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)( ; .+)?$")


def pins(lock: Path) -> dict[str, str]:
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    matches = [PIN.match(line) for line in lines]
    assert None not in matches, "a line is not an exact pin"
    return {match[1]: match[2] for match in matches if match}


def required(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][one] for one in extras)]
    names = {re.split(r"[\[<>=;]", need)[0] for group in groups for need in group}
    return {name.lower().replace("_", "-") for name in names} - {"forebay"}


def test_there_are_three_locks() -> None:
    assert [lock.name for lock in LOCKS] == ["api.lock", "dev.lock", "engine.lock"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_exactly_and_names_no_host_path_or_index(lock: Path) -> None:
    assert pins(lock)
    assert not re.search(r"://|--|file:|@ |/(opt|home|tmp|root)/", lock.read_text(encoding="utf-8"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_holds_no_cuda_package_and_no_local_build(lock: Path) -> None:
    found = pins(lock)
    assert not [name for name in found if re.match(r"nvidia|cuda|triton", name)]
    assert not [version for version in found.values() if "+" in version]


def test_each_lock_pins_what_pyproject_asks_for() -> None:
    api, dev, engine = (pins(lock) for lock in LOCKS)
    assert required() <= api.keys()
    assert required("engine") <= engine.keys()
    assert required("engine", "dev") <= dev.keys()


def test_the_locks_agree_and_an_api_needs_no_torch() -> None:
    api, dev, engine = (pins(lock) for lock in LOCKS)
    assert api.items() <= engine.items() <= dev.items()
    assert not {"torch", "numpy", "transformers"} & api.keys()
    assert "transformers" not in engine
