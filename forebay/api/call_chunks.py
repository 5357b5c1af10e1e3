"""The chunks of a streamed answer that may call functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from forebay.api.call_objects import delta_of, reason_of
from forebay.api.call_reader import CallReader, Told
from forebay.api.chat_objects import Chunks
from forebay.core.events import Piece, TokenLogprob
from forebay.core.request import TaskId
from forebay.core.tools import ToolUse


class CallChunks(Chunks):
    """Makes them of text in which calls stand. ``use``: the functions that are on offer."""

    def __init__(self, task_id: TaskId, model: str, use: ToolUse, *, with_usage: bool) -> None:
        super().__init__(task_id, model, with_usage=with_usage)
        self._task_id = task_id
        self._readers: defaultdict[int, CallReader] = defaultdict(lambda: CallReader(use))
        # of tokens of which nothing is told yet
        self._logprobs: defaultdict[int, tuple[TokenLogprob, ...]] = defaultdict(tuple)

    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the chunks with what is new; none where it may be the beginning of a mark."""
        self._logprobs[piece.index] += piece.logprobs
        return self._chunks(piece.index, self._readers[piece.index].feed(piece.text))

    def closing(self, index: int, finish_reason: str) -> list[dict[str, Any]]:
        """Return the chunks at an answer's end; the last says why it ended."""
        reader = self._readers[index]
        chunks = self._chunks(index, reader.finish())
        if left := self._logprobs.pop(index, ()):
            chunks.append(self.chunk(index, {"content": ""}, left))
        return [*chunks, *super().closing(index, reason_of(reader, finish_reason))]

    def _chunks(self, index: int, told: Iterable[Told]) -> list[dict[str, Any]]:
        answer_id = f"{self._task_id}_{index}"
        return [
            self.chunk(index, delta_of(one, answer_id), self._logprobs.pop(index, ()))
            for one in told
        ]
