from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkpoints import TINY, write_checkpoint


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never stops by itself, so that a burst lasts long enough to be struck."""
    return write_checkpoint(tmp_path_factory.mktemp("model"), replace(TINY, stop_tokens=()))
