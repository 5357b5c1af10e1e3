"""Runs the model over what the scheduler planned. The only part that holds weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forebay.core.request import TaskId
from forebay.engine.attention import PagedAttention, packing_order
from forebay.engine.encoder_cache import EncoderCache
from forebay.engine.gpu.execution import GpuExecution
from forebay.engine.kv_cache import KVCache
from forebay.engine.positions import chunk_positions
from forebay.engine.prepared import PreparedImage, PreparedRequest
from forebay.engine.sequence import Chunk
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.processor import Patches


@dataclass(frozen=True, slots=True)
class Runner:
    """The model, its KV cache, and the pictures that were encoded.

    ``gpu``: the decoder's way through a GPU; None on a CPU.
    """

    model: Glm4vModel
    cache: KVCache
    encoder: EncoderCache[Tensor]
    device: torch.device
    gpu: GpuExecution | None = None

    def encode(self, images: Mapping[str, PreparedImage]) -> dict[str, Tensor]:
        """Run the vision tower once over pictures of any sizes; return each one's visual tokens.

        Thread-safe.
        """
        grids = [image.grid for image in images.values()]
        patches = self._upload([image.patches for image in images.values()])
        tokens = self.model.visual(patches, grids)
        if len(images) == 1:
            return dict.fromkeys(images, tokens)
        merged = self.model.config.vision.merge_unit
        sizes = [rows * columns // merged for rows, columns in grids]
        # a view would keep the whole batch alive
        return {
            sha256: part.clone() for sha256, part in zip(images, tokens.split(sizes), strict=True)
        }

    def keep(self, sha256: str, tokens: Tensor) -> None:
        """Keep a picture's visual tokens for the chunks that read them."""
        self.encoder.put(sha256, tokens, tokens.numel() * tokens.element_size())

    def forward(
        self, chunks: Sequence[Chunk], requests: Mapping[TaskId, PreparedRequest]
    ) -> tuple[list[Chunk], Tensor]:
        """Run the decoder once over all chunks.

        Returns:
            The chunks that end their sequence, and the logits [those chunks, vocabulary] of the
            token that follows each.
        """
        if self.gpu is not None:
            return self.gpu.forward(chunks, requests, self._place_images)
        packed = packing_order(chunks)
        ids = torch.tensor([token for chunk in packed for token in chunk.tokens])
        embeds = self.model.embed(ids.to(self.device))
        self._place_images(embeds, packed)
        positions = np.concatenate(
            [chunk_positions(chunk, requests[chunk.sequence.task_id]) for chunk in packed], axis=1
        )
        attend = PagedAttention(self.cache, packed, self.device, narrow=self.model.narrow)
        hidden = self.model.decode(embeds, torch.from_numpy(positions).to(self.device), attend)
        sampling = [chunk for chunk in packed if chunk.samples]
        ends = np.cumsum([chunk.count for chunk in packed])
        rows = [int(end) - 1 for chunk, end in zip(packed, ends, strict=True) if chunk.samples]
        return sampling, self.model.logits(hidden[torch.tensor(rows, device=self.device).long()])

    def _upload(self, parts: Sequence[Patches]) -> Tensor:
        """Return patches one after the other on the device; a GPU fetches them by itself."""
        pinned = self.device.type == "cuda"
        together = torch.empty(
            (sum(len(part) for part in parts), parts[0].shape[1]), pin_memory=pinned
        )
        np.concatenate(parts, out=together.numpy())
        return together.to(self.device, non_blocking=pinned)

    def _place_images(self, embeds: Tensor, chunks: Sequence[Chunk]) -> None:
        """Write the pictures' embeddings over their placeholders, also where a chunk cuts one."""
        offset = 0
        for chunk in chunks:
            for span in chunk.sequence.spans_within(chunk.start, chunk.end):
                first, last = max(span.start, chunk.start), min(span.end, chunk.end)
                at = offset + first - chunk.start
                tokens = self.encoder.get(span.sha256)
                embeds[at : at + last - first] = tokens[first - span.start : last - span.start]
            offset += chunk.count
