"""M-RoPE positions of what a step computes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forebay.engine.prepared import PreparedRequest
from forebay.engine.sequence import Chunk


def chunk_positions(chunk: Chunk, request: PreparedRequest) -> npt.NDArray[np.int64]:
    """Return the M-RoPE positions [3, tokens] of a chunk: the prompt's own, then one by one."""
    prompt = chunk.sequence.prompt_length
    own = request.positions[:, chunk.start : min(chunk.end, prompt)]
    first = max(chunk.start, prompt)
    if first >= chunk.end:
        return own
    after = request.next_position + np.arange(first - prompt, chunk.end - prompt)
    return np.concatenate((own, np.broadcast_to(after, (3, after.size))), axis=1)
