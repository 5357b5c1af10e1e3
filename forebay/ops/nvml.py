"""NVIDIA's management library, as the driver brings it: what the GPUs do, without a package.

Source: https://docs.nvidia.com/deploy/nvml-api/.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

_SUCCESS: Final = 0
_TEMPERATURE_OF_GPU: Final = 0
_NAMES: Final = ("libnvidia-ml.so.1", "libnvidia-ml.so")


class _Use(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU now. Shares from 0 to 1, sizes in bytes; None where this GPU does not tell."""

    index: int
    use: float | None
    memory_used: int
    memory_total: int
    temperature_c: int | None = None
    power_w: float | None = None

    @property
    def memory_use(self) -> float:
        """The share of its memory that is taken."""
        return self.memory_used / self.memory_total


class Nvml:
    """The driver's library, opened once a process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    @classmethod
    def open(cls) -> Nvml | None:
        """Return it; None on a machine without a driver that works."""
        for name in _NAMES:
            try:
                library = ctypes.CDLL(name)
            except OSError:
                continue
            if library.nvmlInit_v2() == _SUCCESS:
                return cls(library)
        return None

    def read(self) -> tuple[GpuReading, ...]:
        """Return every GPU that answers."""
        count = ctypes.c_uint()
        if self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != _SUCCESS:
            return ()
        found = (self._gpu(index) for index in range(count.value))
        return tuple(one for one in found if one is not None)

    def _gpu(self, index: int) -> GpuReading | None:
        device, memory, use = ctypes.c_void_p(), _Memory(), _Use()
        ask = self._library
        if ask.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != _SUCCESS:
            return None
        if ask.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != _SUCCESS:
            return None
        if not memory.total:
            return None
        told = ask.nvmlDeviceGetUtilizationRates(device, ctypes.byref(use)) == _SUCCESS
        return GpuReading(
            index,
            use.gpu / 100 if told else None,
            memory.used,
            memory.total,
            self._number("nvmlDeviceGetTemperature", device, _TEMPERATURE_OF_GPU),
            None if (power := self._number("nvmlDeviceGetPowerUsage", device)) is None
            else power / 1000,
        )  # fmt: skip

    def _number(self, function: str, device: ctypes.c_void_p, *which: int) -> int | None:
        value = ctypes.c_uint()
        done = getattr(self._library, function)(device, *which, ctypes.byref(value))
        return value.value if done == _SUCCESS else None
