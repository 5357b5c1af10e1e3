"""M-RoPE positions of a prompt with pictures. They belong to the sequence, never to the model.

Source: ``Glm4vModel.get_rope_index`` of Hugging Face ``transformers``, for still pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


def rope_positions(
    token_ids: Sequence[int],
    grids: Sequence[tuple[int, int]],
    image_token_id: int,
    merge_size: int = 2,
) -> tuple[Positions, int]:
    """Return the temporal, height and width position of every prompt token, and the next position.

    Args:
        token_ids: the prompt, each picture expanded to its run of ``image_token_id``.
        grids: (rows, columns) in patches of each picture, in order of appearance.
        image_token_id: the placeholder's id.
        merge_size: patches a side that merge into one visual token.

    Returns:
        An array of shape [3, len(token_ids)], and the position of the first generated token.

    Raises:
        ValueError: the runs of placeholders do not match the grids.
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    positions = np.empty((3, ids.size), dtype=np.int64)
    is_image = ids == image_token_id
    start = next_position = 0
    for rows, columns in ((r // merge_size, c // merge_size) for r, c in grids):
        first = start + int(np.argmax(is_image[start:])) if is_image[start:].any() else ids.size
        end = first + rows * columns
        if end > ids.size or not is_image[first:end].all():
            raise ValueError("the prompt's image placeholders do not match the pictures' grids")
        text_length = first - start
        positions[:, start:first] = np.arange(next_position, next_position + text_length)
        next_position += text_length
        positions[0, first:end] = next_position
        positions[1, first:end] = next_position + np.repeat(np.arange(rows), columns)
        positions[2, first:end] = next_position + np.tile(np.arange(columns), rows)
        next_position += max(rows, columns)
        start = end
    if is_image[start:].any():
        raise ValueError("the prompt has more image placeholders than the pictures fill")
    positions[:, start:] = np.arange(next_position, next_position + ids.size - start)
    return positions, next_position + ids.size - start
