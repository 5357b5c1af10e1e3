"""One request in the engine: its tokens, and how far its KV cache has come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from forebay.core.request import TaskId


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Where a picture's tokens stand in the prompt: ``start`` up to, not including, ``end``."""

    sha256: str
    start: int
    end: int

    @property
    def tokens(self) -> int:
        """Visual tokens of the picture."""
        return self.end - self.start


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and its answer so far.

    ``computed`` tokens have their keys and values in ``blocks``; ``tokens[computed:]`` are
    pending. While it decodes one token is pending: the one sampled last.

    ``urgency``: 0 goes first. ``deadline``: on the clock of ``time.monotonic``, in seconds.
    ``arrival`` and ``overtaken`` (how many later ones started before it) are the scheduler's.
    """

    task_id: TaskId
    tokens: list[int]
    images: tuple[ImageSpan, ...]
    max_tokens: int
    urgency: int = 0
    deadline: float = math.inf
    prompt_length: int = field(init=False)
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    pins: set[str] = field(default_factory=set)
    digests: list[bytes] = field(default_factory=list)
    arrival: int = 0
    overtaken: int = 0
    preemptions: int = 0

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)

    @property
    def pending(self) -> int:
        """Tokens whose keys and values are yet to be computed."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether all but the token sampled last is computed."""
        return self.pending == 1 and len(self.tokens) > self.prompt_length

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def most_tokens(self) -> int:
        """Tokens of KV cache that it may come to hold."""
        return self.prompt_length + self.max_tokens

    def spans_within(self, start: int, end: int) -> Iterator[ImageSpan]:
        """Yield the pictures of which some token lies in ``start`` up to ``end``."""
        return (span for span in self.images if span.start < end and span.end > start)

    def unread_images(self) -> set[str]:
        """Return the pictures that pending tokens still need."""
        return {span.sha256 for span in self.images if span.end > self.computed}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens ``start`` up to ``end`` of a sequence, to be computed in one step."""

    sequence: Sequence
    start: int
    end: int

    @property
    def tokens(self) -> Seq[int]:
        """The chunk's token ids."""
        return self.sequence.tokens[self.start : self.end]

    @property
    def count(self) -> int:
        """Tokens in the chunk."""
        return self.end - self.start

    @property
    def decodes(self) -> bool:
        """Whether its one token is one that was sampled, and not the last of a prompt."""
        return self.count == 1 and self.start >= self.sequence.prompt_length

    @property
    def samples(self) -> bool:
        """Whether the chunk ends the sequence, so that its last logits give the next token."""
        return self.end == len(self.sequence.tokens)
