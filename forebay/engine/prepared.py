"""A request made ready for the device, on any thread, before the engine takes it."""

from __future__ import annotations

import io
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from forebay.core.constraint import Constraint
from forebay.core.errors import (
    InvalidImageError,
    InvalidRequestError,
    PromptTooLongError,
    TaskFailedError,
)
from forebay.core.image_grid import visual_tokens
from forebay.core.request import InferenceRequest, SamplingParams, TaskId, Terms, TextPart
from forebay.engine.grammar import GrammarCompiler, GrammarState
from forebay.engine.sequence import ImageSpan
from forebay.models.chat_template import ChatTemplate
from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.positions import Positions, rope_positions
from forebay.models.processor import ImageProcessor, Patches
from forebay.models.tokenizer import TextTokenizer

_SEED_BITS = 63


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A picture's patches [rows * columns, values], and its grid (rows, columns)."""

    patches: Patches
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """All that the engine needs of a request.

    ``positions``: M-RoPE positions [3, prompt tokens]; ``next_position``: that of the first
    generated token. ``max_tokens`` and ``seed`` are final here. ``grammar``: the constraint at
    its beginning; each answer forks it.
    """

    task_id: TaskId
    token_ids: list[int]
    positions: Positions
    next_position: int
    spans: tuple[ImageSpan, ...]
    images: Mapping[str, PreparedImage]
    sampling: SamplingParams
    max_tokens: int
    seed: int
    terms: Terms
    grammar: GrammarState | None


@dataclass(frozen=True, slots=True)
class Preparer:
    """Pictures to patches, messages to tokens, constraints to grammars. Thread-safe.

    ``longest``: tokens that prompt and answer together may have.
    """

    config: Glm4vConfig
    tokenizer: TextTokenizer
    template: ChatTemplate
    processor: ImageProcessor
    grammars: GrammarCompiler
    longest: int

    @classmethod
    def from_folder(
        cls, folder: Path, config: Glm4vConfig, longest: int, stop_ids: frozenset[int]
    ) -> Preparer:
        """Read the checkpoint's small files. Raises CheckpointError naming the file."""
        tokenizer = TextTokenizer.from_folder(folder)
        vocabulary = config.text.vocab_size
        return cls(
            config=config,
            tokenizer=tokenizer,
            template=ChatTemplate.from_folder(folder),
            processor=ImageProcessor.from_folder(folder),
            grammars=GrammarCompiler(
                tokenizer.tokenizer.to_str(), vocabulary, stop_ids, tokenizer.call_marks
            ),
            longest=longest,
        )

    def prepare(
        self,
        task_id: TaskId,
        request: InferenceRequest,
        images: Mapping[str, bytes],
        terms: Terms,
    ) -> PreparedRequest:
        """Do all of a request's work that needs no model.

        Raises:
            InvalidImageError: a picture cannot be decoded or has no possible grid.
            PromptTooLongError: no room for an answer is left in the context or the KV cache.
            InvalidRequestError: the chat template refuses the messages, or two of the sampling
                parameters do not go together or with this model.
            InvalidConstraintError: the constraint cannot be followed.
            TaskFailedError: a picture's bytes are not in ``images``.
        """
        sampling = request.sampling
        self._refuse_too_many(request)
        grammar = self._grammar(request)
        decoded = {part.sha256: self._image(part.sha256, images) for part in request.images}
        in_order = [part.sha256 for part in request.images]
        token_ids, spans = self._tokens(request, in_order, decoded)
        room = self._room(len(token_ids))
        positions, next_position = rope_positions(
            token_ids,
            [decoded[sha256].grid for sha256 in in_order],
            self.config.image_token_id,
            self.config.vision.spatial_merge_size,
        )
        return PreparedRequest(
            task_id=task_id,
            token_ids=token_ids,
            positions=positions,
            next_position=next_position,
            spans=spans,
            images=decoded,
            sampling=sampling,
            max_tokens=max(1, min(sampling.max_tokens, room)),
            seed=secrets.randbits(_SEED_BITS) if sampling.seed is None else sampling.seed,
            terms=terms,
            grammar=grammar,
        )

    def _grammar(self, request: InferenceRequest) -> GrammarState | None:
        """Return what its answers must follow: a constraint of its own, else calls of its tools."""
        constraint = request.sampling.constraint
        if constraint is None and request.tools is not None:
            constraint = Constraint.calls(request.tools)
        self._refuse_odd(request.sampling, constraint)
        return None if constraint is None else self.grammars.compile(constraint)

    def _room(self, prompt_tokens: int) -> int:
        """Return how many tokens an answer to so long a prompt may have."""
        room = self.longest - prompt_tokens
        if room < 1:
            raise PromptTooLongError(
                f"the prompt takes {prompt_tokens} tokens with its pictures; prompt and answer "
                f"together may take {self.longest}"
            )
        return room

    def _refuse_odd(self, sampling: SamplingParams, constraint: Constraint | None) -> None:
        if constraint is not None and (sampling.min_tokens or sampling.ignore_eos):
            raise InvalidRequestError(
                "a constraint says itself where an answer may end: it goes with neither "
                "min_tokens nor ignore_eos"
            )
        size = self.config.text.vocab_size
        unknown = [token for token in sampling.stop_token_ids if not 0 <= token < size]
        if unknown:
            raise InvalidRequestError(
                f"stop_token_ids has {unknown[0]}, the vocabulary has ids from 0 to {size - 1}",
                param="stop_token_ids",
            )

    def _refuse_too_many(self, request: InferenceRequest) -> None:
        """Price the pictures by their stated sizes before any is decoded."""
        try:
            tokens = sum(
                visual_tokens(part.height, part.width, self.processor.rules)
                for part in request.images
            )
        except ValueError as error:
            raise InvalidImageError(str(error)) from error
        if tokens >= self.longest:
            raise PromptTooLongError(
                f"the pictures take {tokens} tokens; prompt and answer together may take "
                f"{self.longest}"
            )

    def _image(self, sha256: str, images: Mapping[str, bytes]) -> PreparedImage:
        content = images.get(sha256)
        if content is None:
            raise TaskFailedError(f"the bytes of picture {sha256} are no longer stored")
        try:
            with Image.open(io.BytesIO(content)) as picture:
                patches, grid = self.processor.patches(picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InvalidImageError(f"picture {sha256[:12]} cannot be decoded: {error}") from error
        return PreparedImage(patches, grid)

    def _tokens(
        self, request: InferenceRequest, in_order: list[str], decoded: Mapping[str, PreparedImage]
    ) -> tuple[list[int], tuple[ImageSpan, ...]]:
        """Tokenise the rendered messages, each picture's one placeholder widened to its tokens."""
        placeholder = self.config.image_token_id
        if request.raw:
            return self._raw_tokens(request), ()
        tools = () if request.tools is None else request.tools.tools
        rendered = self.template.render(request.messages, self.tokenizer.guard, tools)
        narrow = self.tokenizer.encode(rendered)
        if narrow.count(placeholder) != len(in_order):
            raise TaskFailedError(
                f"the model's chat template made {narrow.count(placeholder)} places for "
                f"{len(in_order)} pictures"
            )
        merged = self.config.vision.merge_unit
        ids: list[int] = []
        spans: list[ImageSpan] = []
        for token in narrow:
            if token != placeholder:
                ids.append(token)
                continue
            sha256 = in_order[len(spans)]
            rows, columns = decoded[sha256].grid
            count = rows * columns // merged
            spans.append(ImageSpan(sha256, len(ids), len(ids) + count))
            ids.extend([placeholder] * count)
        return ids, tuple(spans)

    def _raw_tokens(self, request: InferenceRequest) -> list[int]:
        """Tokenise a prompt that no template is put around."""
        parts = [part for message in request.messages for part in message.parts]
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        ids = self.tokenizer.encode_whole(text)
        if request.images or self.config.image_token_id in ids:
            raise InvalidRequestError(
                "a prompt without a chat template has no place for a picture", param="prompt"
            )
        if not ids:
            raise InvalidRequestError("the prompt is empty", param="prompt")
        return ids
