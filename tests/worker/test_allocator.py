"""Memory that is freed stays with the process."""

from __future__ import annotations

import ctypes

import pytest

from forebay.worker import allocator
from forebay.worker.allocator import keep_freed_memory


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in allocator._OWN_WISHES:
        monkeypatch.delenv(name, raising=False)


class Library:
    """A C library that notes its settings."""

    def __init__(self, takes: int) -> None:
        self.settings: list[tuple[int, int]] = []
        self._takes = takes

    def mallopt(self, name: int, value: int) -> int:
        self.settings.append((name, value))
        return self._takes


@pytest.mark.parametrize(("takes", "kept"), [(1, True), (0, False)])
def test_glibc_is_asked_for_both_settings(monkeypatch, takes: int, kept: bool) -> None:
    library = Library(takes)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert keep_freed_memory() is kept
    assert library.settings[0] == (allocator._TRIM_THRESHOLD, allocator.KEPT_BYTES)
    assert not kept or library.settings[1] == (allocator._MMAP_THRESHOLD, allocator.LARGEST_KEPT)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()


def test_who_has_set_the_allocator_keeps_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(1)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")
    assert not keep_freed_memory()
    assert library.settings == []
