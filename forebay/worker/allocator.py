"""Tells glibc's allocator to keep the memory that a worker frees.

Every layer frees tensors of some megabytes and the next one asks for as much. By default such
memory goes back to the kernel each time and is zeroed, page by page, when it is taken again: on a
CPU that can cost more than the layer's own arithmetic. A worker's peak is the same either way.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3

KEPT_BYTES: Final = 2**30
"""Free memory at the end of the heap below which nothing is given back."""

LARGEST_KEPT: Final = 32 * 2**20
"""Larger pieces go back to the kernel at once; glibc takes no higher threshold."""

_OWN_WISHES: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Set it for this process; False where the C library has no such setting, or the user chose."""
    if any(name in os.environ for name in _OWN_WISHES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    kept = mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
    return bool(kept and mallopt(_MMAP_THRESHOLD, LARGEST_KEPT))
