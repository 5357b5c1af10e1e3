"""Greedy answers of a checkpoint folder, through Forebay's own model code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from forebay.models.glm4v.model import Glm4vModel
from forebay.models.glm4v.positions import rope_positions
from forebay.models.loader import load_model
from forebay.models.processor import ImageProcessor
from forebay.models.quantization import Quantization
from training.language import RowAttention


def prompt(question: str, picture_tokens: int) -> str:
    """Return what the chat template makes of one question about one picture (0 tokens: none)."""
    picture = ""
    if picture_tokens:
        picture = "<|begin_of_image|>" + "<|image|>" * picture_tokens + "<|end_of_image|>"
    return f"[gMASK]<sop><|user|>\n{picture}{question}<|assistant|>\n"


@dataclass(slots=True)
class Reader:
    """A loaded checkpoint."""

    model: Glm4vModel
    processor: ImageProcessor
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path, quantization: Quantization = Quantization.NONE) -> Reader:
        """Load a checkpoint folder in single precision, or with quantized matrices."""
        return cls(
            load_model(folder, quantization=quantization), ImageProcessor.from_folder(folder),
            Tokenizer.from_file(str(folder / "tokenizer.json")),
        )  # fmt: skip

    @torch.inference_mode()
    def answer(
        self, pictures: list[Image.Image | None], questions: list[str], most: int = 48
    ) -> list[str]:
        """Answer one question a picture (None: a message without one)."""
        rows, grids, patches = [], [], []
        merge = self.model.config.vision.spatial_merge_size
        for picture, question in zip(pictures, questions, strict=True):
            grid = []
            if picture is not None:
                pixels, found = self.processor.patches(picture)
                patches.append(torch.from_numpy(pixels))
                grid = [found]
            tokens = sum(h * w // merge**2 for h, w in grid)
            rows.append(
                self.tokenizer.encode(prompt(question, tokens), add_special_tokens=False).ids
            )
            grids.append(grid)
        visual = None
        if patches:
            visual = self.model.visual(torch.cat(patches), [g for grid in grids for g in grid])
        return self._greedy(rows, grids, visual, most)

    def _greedy(
        self, rows: list[list[int]], grids: list[list[tuple[int, int]]], visual: Tensor | None,
        most: int,
    ) -> list[str]:  # fmt: skip
        image, merge = self.model.config.image_token_id, self.processor.rules.merge_size
        lengths = torch.tensor([len(row) for row in rows])
        longest = int(lengths.max()) + most
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        positions = torch.zeros(3, len(rows), longest, dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row)
            padded = [*row, *[0] * (longest - len(row))]
            positions[:, at] = torch.from_numpy(
                np.asarray(rope_positions(padded, grids[at], image, merge)[0])
            )
        ends = set(self.model.config.text.eos_token_ids)
        starts, open_ = lengths.clone(), torch.ones(len(rows), dtype=torch.bool)
        for _ in range(most):
            width = int(lengths.max())
            step = self._next(ids[:, :width], positions[:, :, :width], visual, lengths - 1)
            for at in open_.nonzero().squeeze(1).tolist():
                token = int(step[at])
                if token in ends:
                    open_[at] = False
                else:
                    ids[at, lengths[at]] = token
                    lengths[at] += 1
            if not open_.any():
                break
        return [
            self.tokenizer.decode(ids[at, starts[at] : lengths[at]].tolist())
            for at in range(len(rows))
        ]

    def _next(self, ids: Tensor, positions: Tensor, visual: Tensor | None, last: Tensor) -> Tensor:
        flat = ids.flatten()
        embeds = self.model.embed(flat)
        if visual is not None:
            places = (flat == self.model.config.image_token_id).nonzero().squeeze(1)
            embeds = embeds.index_copy(0, places, visual)
        attend = RowAttention.of(len(ids), ids.shape[1], ids.device)
        hidden = self.model.decode(embeds, positions.flatten(1), attend)
        rows = torch.arange(len(ids)) * ids.shape[1] + last
        return self.model.logits(hidden[rows]).argmax(-1)
