"""Which KV blocks are whose. Bookkeeping only: the tensors are in ``kv_cache``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class BlockPool:
    """A fixed number of blocks with reference counts.

    A block belongs to each sequence that holds a reference and is free when none does. Shared
    prefixes (several references to one block) take their references through :meth:`share`.
    """

    def __init__(self, total: int, block_size: int) -> None:
        if total < 1 or block_size < 1:
            raise ValueError(f"a pool needs blocks and a size, got {total} of {block_size}")
        self.total = total
        self.block_size = block_size
        self._references = [0] * total
        self._free = list(range(total - 1, -1, -1))

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks hold that many tokens."""
        return -(-tokens // self.block_size)

    def take(self, count: int) -> list[int] | None:
        """Return ``count`` free blocks with one reference each, or None: all or nothing."""
        if count > len(self._free):
            return None
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._references[block] = 1
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Add a reference to blocks that somebody holds already."""
        for block in blocks:
            if self._references[block] < 1:
                raise ValueError(f"block {block} is free and cannot be shared")
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference to each; the last one frees the block."""
        for block in blocks:
            if self._references[block] < 1:
                raise ValueError(f"block {block} is free already")
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

    def check(self, held: Iterable[Sequence[int]]) -> None:
        """Raise IntegrityError unless ``held`` (every holder's blocks) explains every count."""
        counted = [0] * self.total
        for blocks in held:
            for block in blocks:
                counted[block] += 1
        if counted != self._references:
            raise IntegrityError("the KV blocks' reference counts do not match their holders")
        if sorted(self._free) != [at for at, count in enumerate(counted) if count == 0]:
            raise IntegrityError("the list of free KV blocks does not match the reference counts")


class IntegrityError(Exception):
    """The engine's books do not add up: a defect of the engine itself."""
