"""Tests that draw need the fonts; where they are not installed they skip and say how to."""

from __future__ import annotations

import pytest

from training.fonts import missing_packages


@pytest.fixture(autouse=True, scope="session")
def fonts() -> None:
    """Skip where a font is missing."""
    missing = missing_packages()
    if missing:
        pytest.skip(f"fonts are missing: apt-get install -y {' '.join(missing)}")
