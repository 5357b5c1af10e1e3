"""Picture embeddings by the picture's full SHA-256, least recently used out first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Generic, TypeVar

from forebay.engine.kv_blocks import IntegrityError

V = TypeVar("V")


class EncoderCache(Generic[V]):
    """Bounded by bytes. Pinned pictures (a running sequence has yet to read them) stay.

    Pinned entries may exceed the capacity: they are bounded by the running sequences.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._entries: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self.bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> V:
        """Return a picture's embeddings. Raises KeyError when they are not here."""
        value, _ = self._entries[key]
        self._entries.move_to_end(key)
        return value

    def put(self, key: str, value: V, size: int) -> None:
        """Keep ``value`` of ``size`` bytes, and drop what the capacity no longer holds."""
        _, old_size = self._entries.pop(key, (None, 0))
        self._entries[key] = (value, size)
        self.bytes += size - old_size
        self._evict()

    def pin(self, key: str) -> None:
        """Keep ``key`` (here now, or soon) until as many calls of :meth:`unpin`."""
        if key in self._entries:
            self._entries.move_to_end(key)
        self._pins[key] += 1

    def unpin(self, key: str) -> None:
        """Take one pin back."""
        if self._pins[key] < 1:
            raise ValueError(f"picture {key} is not pinned")
        self._pins[key] -= 1
        if self._pins[key] == 0:
            del self._pins[key]
            self._evict()

    def pinned(self, key: str) -> bool:
        """Whether a running sequence has yet to read ``key``."""
        return key in self._pins

    def _evict(self) -> None:
        if self.bytes <= self._capacity:
            return
        for key in [key for key in self._entries if key not in self._pins]:
            _, size = self._entries.pop(key)
            self.bytes -= size
            if self.bytes <= self._capacity:
                return

    def check(self, pins: Counter[str]) -> None:
        """Raise IntegrityError unless ``pins`` and the sizes match what is kept here."""
        if +pins != self._pins:
            raise IntegrityError("the encoder cache's pins do not match the running sequences")
        if self.bytes != sum(size for _, size in self._entries.values()):
            raise IntegrityError("the encoder cache's byte count does not match its entries")
        unpinned = sum(1 for key in self._entries if key not in self._pins)
        if self.bytes > self._capacity and unpinned:
            raise IntegrityError("the encoder cache keeps more than its capacity")
