"""A step's integers: gathered on the host, sent to the device in one transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forebay.core.request import TaskId
from forebay.engine.positions import chunk_positions
from forebay.engine.prepared import PreparedRequest
from forebay.engine.sequence import Chunk

Ints = npt.NDArray[np.int32]

ALIGNMENT = 4
"""Integers that each part begins on a multiple of. Triton compiles a kernel anew for pointers that
are no multiples of 16 bytes, so all of them are."""

_EMPTY: Ints = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class HostStep:
    """The packed tokens of a step, and the block tables of its first rows, those of one token.

    ``positions``: [3, T]. ``tables``: the rows' blocks one after the other, each row's from
    ``starts``; ``lengths``: tokens of each row's context, the new one included.
    """

    ids: Ints
    positions: Ints
    slots: Ints
    starts: Ints
    lengths: Ints
    tables: Ints

    @classmethod
    def of(
        cls,
        packed: Sequence[Chunk],
        singles: int,
        requests: Mapping[TaskId, PreparedRequest],
        block: int,
    ) -> HostStep:
        """Gather a step whose first ``singles`` chunks have one token."""
        rows = [chunk.sequence.blocks[: -(-chunk.end // block)] for chunk in packed[:singles]]
        counts = np.fromiter((len(row) for row in rows), np.int32, len(rows))
        positions = [chunk_positions(chunk, requests[chunk.sequence.task_id]) for chunk in packed]
        return cls(
            ids=np.fromiter((token for chunk in packed for token in chunk.tokens), np.int32),
            positions=np.concatenate(positions, axis=1).astype(np.int32),
            slots=np.concatenate([slots_of(chunk, chunk.start, block) for chunk in packed]),
            starts=(np.cumsum(counts) - counts).astype(np.int32),
            lengths=np.fromiter((chunk.end for chunk in packed[:singles]), np.int32, singles),
            tables=np.concatenate([np.asarray(row, np.int32) for row in rows] or [_EMPTY]),
        )

    @classmethod
    def of_nothing(cls) -> HostStep:
        """A step of no rows, to be padded."""
        return cls(_EMPTY, np.empty((3, 0), np.int32), _EMPTY, _EMPTY, _EMPTY, _EMPTY)

    def padded(self, rows: int, scratch: int, block: int) -> HostStep:
        """Add rows of one token, up to ``rows``, that write to and read the block ``scratch``."""
        more = rows - len(self.ids)
        if more == 0:
            return self
        return HostStep(
            ids=np.append(self.ids, np.zeros(more, np.int32)),
            positions=np.append(self.positions, np.zeros((3, more), np.int32), axis=1),
            slots=np.append(self.slots, np.full(more, scratch * block, np.int32)),
            starts=np.append(self.starts, np.full(more, len(self.tables), np.int32)),
            lengths=np.append(self.lengths, np.ones(more, np.int32)),
            tables=np.append(self.tables, np.int32(scratch)),
        )

    @property
    def parts(self) -> list[Ints]:
        """Every array flat, in the order of the fields; only the last one's size varies."""
        first = [self.ids, self.positions.reshape(-1), self.slots, self.starts, self.lengths]
        return [*first, self.tables]


def slots_of(chunk: Chunk, start: int, block: int) -> Ints:
    """Return where in the cache a chunk's sequence keeps its tokens ``start`` up to its end."""
    at = np.arange(start, chunk.end)
    first = start // block
    held = np.asarray(chunk.sequence.blocks[first : -(-chunk.end // block)])
    return (held[at // block - first] * block + at % block).astype(np.int32)


def offsets(sizes: Sequence[int]) -> list[int]:
    """Return where parts of these sizes begin in a flat tensor, and, last, how long that is."""
    at = [0]
    for size in sizes:
        at.append(at[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return at


def flat(parts: Sequence[Ints], *, pinned: bool) -> Tensor:
    """Return the parts in one int32 tensor, each at its :func:`offsets`.

    In pinned memory the transfer that follows needs no wait; torch keeps such memory until the
    transfer is done, and hands it out again.
    """
    at = offsets([part.size for part in parts])
    out = torch.empty(at[-1], dtype=torch.int32, pin_memory=pinned)
    into = out.numpy()
    for begin, part in zip(at, parts, strict=False):
        into[begin : begin + part.size] = part
    return out


def upload(parts: Sequence[Ints], device: torch.device) -> list[Tensor]:
    """Send arrays to the device in one transfer, and return them there, flat."""
    sent = flat(parts, pinned=device.type == "cuda").to(device, non_blocking=True)
    return views(sent, [part.size for part in parts])


def views(tensor: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the parts of a flat tensor."""
    return [
        tensor[begin : begin + size] for begin, size in zip(offsets(sizes), sizes, strict=False)
    ]
