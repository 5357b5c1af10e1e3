"""The decode step over buffers that never move, so that a CUDA graph can hold it.

A graph replays launches with the addresses and shapes they were captured with. The step therefore
reads its integers from one static tensor, and comes in a few sizes: a batch is padded to the next
one with rows that write to a block nobody owns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from forebay.core.request import TaskId
from forebay.engine.gpu.attention import GpuAttention
from forebay.engine.gpu.decoder import FusedDecoder
from forebay.engine.gpu.inputs import HostStep, flat, offsets, views
from forebay.engine.gpu.ops import BlockTables, Ops
from forebay.engine.kv_cache import KVCache
from forebay.engine.prepared import PreparedRequest
from forebay.engine.sequence import Chunk
from forebay.models.glm4v.model import Glm4vModel


class StaticDecode:
    """Decode steps of up to ``most_rows`` rows, each of up to ``longest`` tokens of context."""

    def __init__(
        self,
        model: Glm4vModel,
        decoder: FusedDecoder,
        ops: Ops,
        cache: KVCache,
        *,
        most_rows: int,
        longest: int,
    ) -> None:
        self._model = model
        self._decoder = decoder
        self._ops = ops
        self._cache = cache
        self._device = cache.keys.device
        self._heads = model.config.text.num_attention_heads
        self.sizes = batch_sizes(most_rows)
        blocks = most_rows * -(-longest // cache.block_size) + 1
        room = offsets([*_sizes(self.sizes[-1]), blocks])[-1]
        self._static = torch.zeros(room, dtype=torch.int32, device=self._device)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def takes(self, chunks: Sequence[Chunk]) -> bool:
        """Whether a step is one: every chunk the one token that its sequence sampled last."""
        return len(chunks) <= self.sizes[-1] and all(
            chunk.samples and chunk.count == 1 and chunk.start >= chunk.sequence.prompt_length
            for chunk in chunks
        )

    def forward(
        self, chunks: Sequence[Chunk], requests: Mapping[TaskId, PreparedRequest]
    ) -> Tensor:
        """Return the logits [chunks, vocabulary].

        Use them before the next step: a graph writes them to the same place each time.
        """
        size = next(size for size in self.sizes if size >= len(chunks))
        block = self._cache.block_size
        step = HostStep.of(chunks, len(chunks), requests, block)
        self._load(step.padded(size, self._cache.scratch, block))
        return self.compute(size, int(step.lengths.max()))[: len(chunks)]

    def compute(self, size: int, longest: int) -> Tensor:
        """Compute the step that was loaded: replay its graph where one was captured."""
        graph = self._graphs.get(size)
        if graph is None:
            return self.run(size, longest)
        graph[0].replay()
        return graph[1]

    def _load(self, step: HostStep) -> None:
        sent = flat(step.parts, pinned=self._device.type == "cuda")
        self._static[: sent.numel()].copy_(sent, non_blocking=True)

    def run(self, size: int, longest: int) -> Tensor:
        """Launch the step that was loaded, of ``size`` rows: this is what a graph captures.

        ``longest``: tokens of the longest context; operations that a graph can hold do not look.
        """
        at = offsets(_sizes(size))
        ids, positions, slots, starts, lengths = views(self._static, _sizes(size))
        tables = BlockTables(self._static[at[-1] :], starts, lengths, longest)
        attention = GpuAttention(self._cache, self._ops, self._heads, slots, tables)
        embeds = self._model.embed(ids)
        hidden = self._decoder(embeds, positions.view(3, size), attention)
        return self._decoder.product(self._model.lm_head, hidden)

    @torch.inference_mode()
    def capture(self, stream: torch.cuda.Stream) -> None:
        """Capture a graph of every size, the largest first: the smaller ones use its memory.

        Each size runs once before, so that kernels are compiled and libraries set up.

        Args:
            stream: of these graphs alone. cuBLAS keeps a workspace (32 MiB on Hopper) for every
                stream it has worked on, and the graphs hold its address; newer versions of torch
                give it back as soon as one graph of that stream is gone.
        """
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(self.sizes):
            nothing = HostStep.of_nothing()
            self._load(nothing.padded(size, self._cache.scratch, self._cache.block_size))
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.run(size, 1)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):  # waits for the device first
                logits = self.run(size, 1)
            self._graphs[size] = (graph, logits)


def batch_sizes(most_rows: int) -> tuple[int, ...]:
    """Return the powers of two below ``most_rows``, and ``most_rows``."""
    sizes = [1 << power for power in range(most_rows.bit_length())]
    return tuple(sorted({*(size for size in sizes if size < most_rows), most_rows}))


def _sizes(rows: int) -> list[int]:
    """Integers of each part of a step but its block tables."""
    return [rows, 3 * rows, rows, rows, rows]
