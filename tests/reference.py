"""``transformers``, asked the same questions: what the proof tests compare Forebay with."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TextPart,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's file, and what a request says of it."""

    part: ImagePart
    content: bytes

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content)).convert("RGB")


def picture(width: int, height: int, seed: int = 0) -> Picture:
    """Return a picture with structure and noise, stored without loss."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + rng.integers(-40, 40, smooth.shape)
    content = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(content, "PNG")
    data = content.getvalue()
    return Picture(ImagePart(hashlib.sha256(data).hexdigest(), width, height), data)


def contents(pictures: Sequence[Picture]) -> dict[str, bytes]:
    """Return the pictures' bytes by their SHA-256."""
    return {shown.part.sha256: shown.content for shown in pictures}


def question(text: str, pictures: Sequence[Picture] = (), **sampling: Any) -> InferenceRequest:
    """Return a request with the pictures first."""
    parts = (*(shown.part for shown in pictures), TextPart(text))
    return InferenceRequest("m", (Message(Role.USER, parts),), SamplingParams(**sampling))


class Reference:
    """A checkpoint folder as ``transformers`` loads it."""

    def __init__(self, folder: Path) -> None:
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        config = transformers.AutoConfig.from_pretrained(folder)
        architecture = config.architectures[0]
        self.model = getattr(transformers, architecture).from_pretrained(folder).eval()
        is_46v = architecture == "Glm46VForConditionalGeneration"
        processor = Glm46VImageProcessorPil if is_46v else Glm4vImageProcessorPil
        self.processor = processor.from_pretrained(folder)
        self.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        self.image_token_id = config.image_token_id

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the rendered prompt."""
        rendered = self.tokenizer.apply_chat_template(
            [_turn(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
        assert isinstance(rendered, str)
        return rendered

    def inputs(
        self, messages: Sequence[Message], pictures: Mapping[str, Image.Image]
    ) -> dict[str, torch.Tensor]:
        """Return the model's inputs, made as ``Glm4vProcessor`` makes them."""
        parts = [p for message in messages for p in message.parts if isinstance(p, ImagePart)]
        text, extra = self.prompt(messages), {}
        if parts:
            shown = [pictures[part.sha256] for part in parts]
            extra = dict(self.processor(images=shown, return_tensors="pt"))
            pieces = text.split("<|image|>")
            merged = self.processor.merge_size**2
            counts = (extra["image_grid_thw"].prod(dim=1) // merged).tolist()
            text = pieces[0]
            for count, piece in zip(counts, pieces[1:], strict=True):
                text += "<|image|>" * count + piece
        ids = torch.tensor([self.tokenizer(text, add_special_tokens=False)["input_ids"]])
        types = (ids == self.image_token_id).int()
        return {"input_ids": ids, "mm_token_type_ids": types, **extra}

    @torch.inference_mode()
    def logits(
        self, messages: Sequence[Message], pictures: Mapping[str, Image.Image]
    ) -> torch.Tensor:
        """Return the logits [tokens, vocabulary] of the prompt."""
        out: torch.Tensor = self.model(**self.inputs(messages, pictures)).logits[0]
        return out

    @torch.inference_mode()
    def generate(
        self, messages: Sequence[Message], pictures: Mapping[str, Image.Image], max_tokens: int
    ) -> list[int]:
        """Return the greedy answer's tokens, the one that ended it included."""
        inputs = self.inputs(messages, pictures)
        out = self.model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        tokens: list[int] = out[0, inputs["input_ids"].shape[1] :].tolist()
        return tokens


def _turn(message: Message) -> dict[str, Any]:
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    if len(texts) == len(message.parts):
        return {"role": message.role.value, "content": "".join(texts)}
    parts = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.parts
    ]
    return {"role": message.role.value, "content": parts}
