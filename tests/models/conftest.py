from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny matrices on shared cores: a second thread only waits."""
    torch.set_num_threads(1)
