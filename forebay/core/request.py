"""What a client asks for, once it is admitted: the message that travels from the door to a worker.

Pictures are named by the SHA-256 of their normalised bytes; the bytes themselves lie in the blob
store and never ride in the queue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

TaskId = NewType("TaskId", str)
Tenant = NewType("Tenant", str)

DEFAULT_TENANT = Tenant("default")


class Priority(StrEnum):
    """Classes of urgency, the most urgent first."""

    VIP = "vip"
    NORMAL = "normal"
    BATCH = "batch"


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text of a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture of a message: full SHA-256 (hex) of its normalised bytes, its size in pixels."""

    sha256: str
    width: int
    height: int


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation, its parts in the client's order."""

    role: Role
    parts: tuple[Part, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"role": self.role.value, "parts": [_part_to_dict(part) for part in self.parts]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Message:
        """Read the JSON form. Raises KeyError or ValueError when it is not one."""
        return cls(Role(raw["role"]), tuple(_part_from_dict(part) for part in raw["parts"]))


def _part_to_dict(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"text": text}
        case ImagePart(sha256, width, height):
            return {"sha256": sha256, "width": width, "height": height}


def _part_from_dict(raw: Mapping[str, Any]) -> Part:
    if "text" in raw:
        return TextPart(raw["text"])
    return ImagePart(raw["sha256"], int(raw["width"]), int(raw["height"]))


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen and when to stop. ``temperature`` 0 is greedy."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SamplingParams:
        """Read the JSON form."""
        return cls(**{**raw, "stop": tuple(raw.get("stop", ()))})


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One admitted request for one answer."""

    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """Every picture, in order of appearance (a picture shown twice appears twice)."""
        return tuple(
            part
            for message in self.messages
            for part in message.parts
            if isinstance(part, ImagePart)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "model": self.model,
            "messages": [message.to_dict() for message in self.messages],
            "sampling": self.sampling.to_dict(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> InferenceRequest:
        """Read the JSON form. Raises KeyError, TypeError or ValueError when it is not one."""
        return cls(
            model=raw["model"],
            messages=tuple(Message.from_dict(message) for message in raw["messages"]),
            sampling=SamplingParams.from_dict(raw["sampling"]),
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """How urgent a leased task is. ``deadline``: seconds on this process's ``time.monotonic``."""

    priority: Priority = Priority.NORMAL
    deadline: float = math.inf


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request will take of the device, in tokens, known before any picture is decoded."""

    visual_tokens: int
    text_tokens: int
    output_tokens: int

    @property
    def total(self) -> int:
        """Tokens of KV cache that the request may come to hold."""
        return self.visual_tokens + self.text_tokens + self.output_tokens
