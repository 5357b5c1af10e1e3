"""Which KV blocks are whose, and what the idle ones still know. The tensors are in ``kv_cache``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """A fixed number of blocks with reference counts, and a prefix cache over them.

    A block is *held* while some sequence has a reference to it. One whose content was published
    under a digest outlives its holders: it lies *idle* until it is shared again or, the longest
    idle first, taken for something else. Digests name a block together with everything before it
    (see ``forebay.engine.prefix``), so a block found by its digest may be read in place of
    computing it.
    """

    def __init__(self, total: int, block_size: int) -> None:
        if total < 1 or block_size < 1:
            raise ValueError(f"a pool needs blocks and a size, got {total} of {block_size}")
        self.total = total
        self.block_size = block_size
        self._references = [0] * total
        self._empty = list(range(total - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._digests: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - self.free

    @property
    def idle(self) -> int:
        """Blocks that nobody holds and whose content may yet be used again."""
        return len(self._idle)

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks hold that many tokens."""
        return -(-tokens // self.block_size)

    def take(self, count: int) -> list[int] | None:
        """Return ``count`` blocks with one reference each, or None: all or nothing."""
        if count > self.free:
            return None
        taken = [self._empty.pop() if self._empty else self._evict() for _ in range(count)]
        for block in taken:
            self._references[block] = 1
        return taken

    def publish(self, block: int, digest: bytes) -> None:
        """Name the content of a held block, now complete. The first block of a digest stays."""
        if self._references[block] < 1:
            raise ValueError(f"block {block} is free and cannot be published")
        if digest not in self._blocks and block not in self._digests:
            self._blocks[digest] = block
            self._digests[block] = digest

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """Return the blocks of the longest known beginning of a chain of digests."""
        found = []
        for digest in digests:
            block = self._blocks.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def share(self, blocks: Iterable[int]) -> None:
        """Add a reference to blocks that somebody holds, or that lie idle."""
        for block in blocks:
            if self._references[block] < 1 and block not in self._idle:
                raise ValueError(f"block {block} is free and cannot be shared")
            self._idle.pop(block, None)
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference to each; the last one frees the block.

        The end of a chain becomes idle before its beginning: it is the first to be taken, since
        what comes after a missing block can not be found.
        """
        for block in reversed(blocks):
            if self._references[block] < 1:
                raise ValueError(f"block {block} is free already")
            self._references[block] -= 1
            if self._references[block] > 0:
                continue
            if block in self._digests:
                self._idle[block] = None
            else:
                self._empty.append(block)

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._blocks[self._digests.pop(block)]
        return block

    def check(self, held: Iterable[Sequence[int]]) -> None:
        """Raise IntegrityError unless ``held`` (every holder's blocks) explains every count."""
        counted = [0] * self.total
        for blocks in held:
            for block in blocks:
                counted[block] += 1
        if counted != self._references:
            raise IntegrityError("the KV blocks' reference counts do not match their holders")
        nobodys = [at for at, count in enumerate(counted) if count == 0]
        if sorted([*self._empty, *self._idle]) != nobodys:
            raise IntegrityError("the free KV blocks do not match the reference counts")
        if self._digests != {block: digest for digest, block in self._blocks.items()}:
            raise IntegrityError("the prefix cache's two tables contradict each other")
        if not set(self._idle) <= set(self._digests) or set(self._empty) & set(self._digests):
            raise IntegrityError("an idle KV block has no digest, or an empty one has")


class IntegrityError(Exception):
    """The engine's books do not add up: a defect of the engine itself."""
