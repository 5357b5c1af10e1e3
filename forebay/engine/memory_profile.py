"""Measures what the engine takes beside its KV cache, before the first request is taken.

On a GPU the largest step that the limits admit is really run: the vision tower over the most
pictures, a whole token budget of prefill, and a decode step of every sequence. What that took is
what serving takes. On a CPU the same is estimated: running it would take longer than the start may.
"""

from __future__ import annotations

import gc
import io
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from PIL import Image

from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    Terms,
    TextPart,
)
from forebay.engine.host_memory import available_bytes
from forebay.engine.kv_cache import bytes_per_token
from forebay.engine.limits import DEFAULT_KV_BYTES, EngineLimits
from forebay.engine.memory import EngineMemoryError, KVNeed, MemorySplit, MemoryUse, split_memory
from forebay.engine.prepared import PreparedRequest, Preparer
from forebay.models.glm4v.config import Glm4vConfig

PROMPT_ROOM = 128
"""Tokens that a prompt has at least beside its pictures: the template's and some text."""

FLAT = 1e3
"""A temperature at which every token is about as likely as any other."""


ANSWER = 4
"""Tokens that each answer of the largest step has: enough for all to decode in one step, though
who shows the pictures starts later.
"""


class DeviceMemory(Protocol):
    """A device's memory, as this process sees it."""

    def free(self) -> int:
        """Bytes that the process may still take; what its allocator holds back is taken."""
        ...

    def settle(self) -> None:
        """Wait for the device, and give back what the allocator holds unused."""
        ...


class CudaMemory:
    """A CUDA device through torch's allocator."""

    def __init__(self, device: torch.device) -> None:
        current = torch.device("cuda", torch.cuda.current_device())
        self._device = current if device == torch.device("cuda") else device  # some need an index

    def free(self) -> int:
        """See :class:`DeviceMemory`; a cap set on the process counts too."""
        torch.cuda.synchronize(self._device)
        free, total = torch.cuda.mem_get_info(self._device)
        cap = int(total * torch.cuda.get_per_process_memory_fraction(self._device))
        return min(free, cap - torch.cuda.memory_reserved(self._device))

    def settle(self) -> None:
        """See :class:`DeviceMemory`."""
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()


class Exercised(Protocol):
    """An engine that has run its largest step, and still holds what it took for it."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of its KV cache."""
        ...


def measured_use(
    memory: DeviceMemory, free: int, exercise: Callable[[], Exercised], pictures: int
) -> MemoryUse:
    """Run the largest step and return what it took.

    Args:
        memory: of the device that holds the model already.
        free: what was free before the model was loaded.
        exercise: builds an engine and runs its largest step.
        pictures: bytes that picture embeddings may take.

    Raises:
        EngineMemoryError: the device had too little even for that step.
    """
    memory.settle()
    loaded = memory.free()
    try:
        engine = exercise()
    except torch.cuda.OutOfMemoryError as error:
        raise EngineMemoryError(
            f"the largest step does not fit the device ({error}). Make token_budget, max_running "
            "or image_side smaller, or take a quantized or smaller model"
        ) from error
    taken = loaded - memory.free() - engine.cache_bytes
    del engine
    memory.settle()
    return MemoryUse(free, free - loaded, max(0, taken), pictures)


def host_split(config: Glm4vConfig, limits: EngineLimits, dtype: torch.dtype) -> MemorySplit:
    """Return who gets which bytes of what the host has left beside the model.

    Raises:
        EngineMemoryError: one longest request would not fit.
    """
    most = DEFAULT_KV_BYTES // bytes_per_token(config.text, dtype)
    need = kv_need(config, limits, dtype, most_tokens=most)
    activations = estimated_activations(config, limits, dtype)
    pictures = picture_bytes(config, limits, dtype)
    free = available_bytes()
    if free is None:  # no one says: take what is needed
        needed = activations + pictures + need.most_tokens // need.block * need.block_cost
        free = math.ceil(needed / limits.memory_share)
    return split_memory(MemoryUse(free, 0, activations, pictures), need, limits.memory_share)


def kv_need(
    config: Glm4vConfig, limits: EngineLimits, dtype: torch.dtype, most_tokens: int | None = None
) -> KVNeed:
    """Return what the KV cache of a model is made of, and its bounds."""
    text = config.text
    most = limits.max_running * text.max_position_embeddings
    least = min(limits.context_tokens, text.max_position_embeddings)
    return KVNeed(
        block=limits.kv_block,
        block_bytes=limits.kv_block * bytes_per_token(text, dtype),
        layers=text.num_hidden_layers,
        least_tokens=least,
        most_tokens=max(least, most if most_tokens is None else min(most, most_tokens)),
    )


def picture_bytes(config: Glm4vConfig, limits: EngineLimits, dtype: torch.dtype) -> int:
    """Return the bytes of picture embeddings: the cache, and those of one step on top."""
    tokens = max(limits.vision_budget, limits.largest_image)
    return limits.encoder_cache_bytes + tokens * config.text.hidden_size * dtype.itemsize


def estimated_activations(config: Glm4vConfig, limits: EngineLimits, dtype: torch.dtype) -> int:
    """Return about how many bytes a largest step takes on a CPU.

    Its widest layer, its logits, and two pictures: one in the step and one beside it.
    """
    text, vision = config.text, config.vision
    row = 4 * text.hidden_size + 3 * text.intermediate_size
    patches = 2 * limits.largest_image * vision.merge_unit
    patch = 6 * vision.hidden_size + 3 * max(vision.out_hidden_size, vision.intermediate_size)
    logits = 3 * limits.max_running * text.vocab_size
    return (limits.token_budget * row + patches * patch + logits) * max(4, dtype.itemsize)


def largest_requests(preparer: Preparer, limits: EngineLimits) -> list[PreparedRequest]:
    """Return requests that fill a step: its pictures, its tokens, its sampled rows.

    There are ``max_running`` of them, prompts all different, their ``ANSWER`` tokens drawn the
    dearest way: from so flat a distribution that its cut needs the whole vocabulary in order.
    """
    pictures = [_picture(side) for side in picture_sides(limits, preparer.longest)]
    words = -(-limits.token_budget // max(1, limits.max_running - 1))
    most = max(1, preparer.longest - PROMPT_ROOM)
    asked = [_request(0, pictures, 1 if limits.max_running > 1 else min(words, most))]
    asked += [_request(at, [], min(words, most)) for at in range(1, limits.max_running)]
    contents = {part.sha256: content for part, content in pictures}
    return [
        preparer.prepare(TaskId(f"largest-{at}"), request, contents, Terms())
        for at, request in enumerate(asked)
    ]


def picture_sides(limits: EngineLimits, longest: int) -> list[int]:
    """Return the sides, in visual tokens, of square pictures that fill a vision batch.

    The largest picture comes first; the rest of the budget goes to smaller ones.
    """
    room = longest - PROMPT_ROOM
    left, sides = max(limits.vision_budget, limits.largest_image), []
    while (side := math.isqrt(max(0, min(limits.largest_image, left, room)))) > 1:
        sides.append(side)
        left -= side * side
        room -= side * side + 2  # and the marks around it
    return sides


def _picture(side: int) -> tuple[ImagePart, bytes]:
    pixels = side * 28
    content = io.BytesIO()
    Image.linear_gradient("L").resize((pixels, pixels)).convert("RGB").save(content, "JPEG")
    return ImagePart(f"{side:064x}", pixels, pixels), content.getvalue()


def _request(at: int, pictures: Sequence[tuple[ImagePart, bytes]], words: int) -> InferenceRequest:
    parts: list[ImagePart | TextPart] = [part for part, _ in pictures]
    parts.append(TextPart(" ".join([str(at), *["a"] * words])))
    sampling = SamplingParams(
        max_tokens=ANSWER, temperature=FLAT, top_p=0.9, seed=at, ignore_eos=True
    )
    return InferenceRequest("profile", (Message(Role.USER, tuple(parts)),), sampling)


def gpu_split(
    config: Glm4vConfig, limits: EngineLimits, dtype: torch.dtype, use: MemoryUse
) -> MemorySplit:
    """Return who gets which bytes of a GPU. Raises EngineMemoryError."""
    return split_memory(use, kv_need(config, limits, dtype), limits.memory_share)
