"""Where the tests of the GPU path run: on the GPU, or here through Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from forebay.engine.gpu.triton_ops import TritonOps

HAS_CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_CUDA else "cpu")
INTERPRETED = not HAS_CUDA and os.environ.get("TRITON_INTERPRET") == "1"
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs an NVIDIA GPU")


def triton_ops() -> TritonOps:
    """Return the kernels, or skip the test saying what is missing."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: the kernels cannot run, not even interpreted")
    if not (HAS_CUDA or INTERPRETED):
        pytest.skip("no GPU: set TRITON_INTERPRET=1 to run the kernels through the interpreter")
    processors = torch.cuda.get_device_properties(DEVICE).multi_processor_count if HAS_CUDA else 6
    return TritonOps(processors)
