"""What names the content of a KV block: a digest chained over everything before it.

Keys and values at a place follow from all tokens and pictures up to it. So the digest of a block
covers the digest of the block before it, the block's own tokens, and for each picture that it
touches the picture's full SHA-256 with the place inside the picture. All of it is SHA-256: with a
short or a plain Python hash one client could be answered about another client's picture.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator

from forebay.engine.sequence import Sequence


def block_digest(sequence: Sequence, at: int, block_size: int, before: bytes) -> bytes:
    """Return the digest of a sequence's ``at``-th block; ``before``: that of the block before."""
    start, end = at * block_size, (at + 1) * block_size
    digest = hashlib.sha256(before)
    digest.update(array("q", sequence.tokens[start:end]).tobytes())
    for span in sequence.spans_within(start, end):
        digest.update(f"{span.sha256}@{start - span.start};".encode())
    return digest.digest()


def chain(sequence: Sequence, blocks: int, block_size: int) -> Iterator[bytes]:
    """Yield the digests of a sequence's first ``blocks`` blocks; all their tokens must be known.

    They are kept with the sequence: its tokens only ever grow.
    """
    known = sequence.digests
    for at in range(blocks):
        if at == len(known):
            known.append(block_digest(sequence, at, block_size, known[-1] if known else b""))
        yield known[at]
