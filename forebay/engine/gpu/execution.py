"""The decoder of one step on a GPU: a captured graph where all decode, else launch by launch."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forebay.core.request import TaskId
from forebay.engine.attention import packing_order
from forebay.engine.gpu.attention import GpuAttention, plan_prefills
from forebay.engine.gpu.decoder import FusedDecoder, plain_weights
from forebay.engine.gpu.inputs import HostStep, upload
from forebay.engine.gpu.ops import BlockTables, Ops, TorchOps
from forebay.engine.gpu.static_decode import StaticDecode
from forebay.engine.gpu.triton_ops import TritonOps
from forebay.engine.kv_cache import KVCache
from forebay.engine.prepared import PreparedRequest
from forebay.engine.sequence import Chunk
from forebay.models.glm4v.model import Glm4vModel

PlaceImages = Callable[[Tensor, Sequence[Chunk]], None]
"""Writes pictures over their placeholders in the embeddings of packed chunks."""


@dataclass(frozen=True, slots=True)
class GpuExecution:
    """Runs what the scheduler planned; build it with :meth:`build`."""

    model: Glm4vModel
    cache: KVCache
    ops: Ops
    decoder: FusedDecoder
    static: StaticDecode

    @classmethod
    def build(
        cls, model: Glm4vModel, cache: KVCache, ops: Ops, *, most_rows: int, longest: int
    ) -> GpuExecution:
        """Set up for up to ``most_rows`` sequences of up to ``longest`` tokens.

        The model's weights are laid out anew (no more memory is taken), and decode steps are
        captured where the operations allow it.
        """
        decoder = FusedDecoder(model.model.language_model, ops)
        static = StaticDecode(model, decoder, ops, cache, most_rows=most_rows, longest=longest)
        if ops.capturable and cache.keys.is_cuda:
            stream = torch.cuda.Stream(cache.keys.device)  # type: ignore[no-untyped-call]
            if isinstance(ops, TritonOps):
                matrices = [*decoder.matrices, *plain_weights(model.lm_head)]
                ops.stream_where_quicker(matrices, stream)
            static.capture(stream)
        return cls(model, cache, ops, decoder, static)

    def forward(
        self,
        chunks: Sequence[Chunk],
        requests: Mapping[TaskId, PreparedRequest],
        place_images: PlaceImages,
    ) -> tuple[list[Chunk], Tensor]:
        """Run the decoder once over all chunks; see ``Runner.forward``."""
        if self.static.takes(chunks):
            return list(chunks), self.static.forward(chunks, requests)
        return self._mixed(packing_order(chunks), requests, place_images)

    def _mixed(
        self,
        packed: list[Chunk],
        requests: Mapping[TaskId, PreparedRequest],
        place_images: PlaceImages,
    ) -> tuple[list[Chunk], Tensor]:
        block = self.cache.block_size
        singles = sum(1 for chunk in packed if chunk.decodes)
        step = HostStep.of(packed, singles, requests, block)
        plans = plan_prefills(packed[singles:], singles, block)
        ends = np.cumsum([chunk.count for chunk in packed])
        sampling = [chunk for chunk in packed if chunk.samples]
        last = [end - 1 for chunk, end in zip(packed, ends, strict=True) if chunk.samples]
        parts = [*step.parts, np.asarray(last, np.int32)]
        sent = upload(
            [*parts, *(part for plan in plans for part in plan.parts)], self.cache.keys.device
        )
        ids, positions, slots, starts, lengths, flat, rows = sent[: len(parts)]
        rest = iter(sent[len(parts) :])
        prefills = tuple(plan.on_device([next(rest) for _ in plan.parts]) for plan in plans)
        longest = int(step.lengths.max()) if singles else 0
        tables = BlockTables(flat, starts, lengths, longest) if singles else None
        heads = self.model.config.text.num_attention_heads
        attention = GpuAttention(self.cache, self.ops, heads, slots, tables, prefills)
        embeds = self.model.embed(ids)
        place_images(embeds, packed)
        hidden = self.decoder(embeds, positions.view(3, -1), attention)
        return sampling, self.model.logits(hidden.index_select(0, rows))


TRITON_CAPABILITY = (8, 0)
"""Compute capability from which Triton is kept working, and knows bfloat16."""


def default_ops(device: torch.device) -> Ops:
    """Return the Triton kernels where they run, plain torch elsewhere, with a warning.

    One small kernel is run to find out. CUDA builds of torch for Windows come without Triton; on
    Linux it needs a C compiler and Python's headers when a kernel runs for the first time.
    """
    properties = torch.cuda.get_device_properties(device)
    if (properties.major, properties.minor) < TRITON_CAPABILITY:
        return TorchOps()
    try:
        ops = TritonOps(properties.multi_processor_count)
        ops.norm(torch.ones(1, 16, device=device), torch.ones(16, device=device), 1e-5)
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"Triton's kernels do not run here, plain torch takes their place: {error}. "
            "They need the package triton, a C compiler (gcc) and Python's headers (python3-dev)",
            RuntimeWarning,
            stacklevel=2,
        )
        return TorchOps()
    return ops
