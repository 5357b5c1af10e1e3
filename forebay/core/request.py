"""What a client asks for, once it is admitted: the message that travels from the door to a worker.

Pictures are named by the SHA-256 of their normalised bytes; the bytes themselves lie in the blob
store and never ride in the queue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Final, NewType, Self

from forebay.core.constraint import Constraint
from forebay.core.tools import ToolCall, ToolUse
from forebay.core.trace import Trace

TaskId = NewType("TaskId", str)
Tenant = NewType("Tenant", str)

DEFAULT_TENANT = Tenant("default")


class Priority(int):
    """Urgency, from 0, the most urgent, to 9. Three levels have names that clients send.

    Raises ValueError for a level that does not exist.
    """

    VIP: ClassVar[Priority]
    NORMAL: ClassVar[Priority]
    BATCH: ClassVar[Priority]
    LEVELS: ClassVar[int] = 10

    def __new__(cls, level: int) -> Self:
        """Return the level."""
        if not 0 <= level < cls.LEVELS:
            raise ValueError(f"a priority is one of {cls.forms()}, not {level}")
        return super().__new__(cls, level)

    @classmethod
    def named(cls, text: str) -> Priority:
        """Read what a client sent: a name, or a level's number. Raises ValueError."""
        if text in PRIORITY_NAMES:
            return PRIORITY_NAMES[text]
        if len(text) == 1 and text.isascii() and text.isdigit():
            return cls(int(text))
        raise ValueError(f"a priority is one of {cls.forms()}, not {text[:20]!r}")

    @classmethod
    def forms(cls) -> str:
        """Return every accepted form, for a message."""
        return f"{', '.join(PRIORITY_NAMES)}, or a number from 0 to {cls.LEVELS - 1}"

    def __str__(self) -> str:
        """Return the name, or the number where there is none."""
        names = (name for name, priority in PRIORITY_NAMES.items() if priority == self)
        return next(names, str(int(self)))


Priority.VIP, Priority.NORMAL, Priority.BATCH = Priority(1), Priority(5), Priority(9)

PRIORITY_NAMES: Final = {
    "vip": Priority.VIP,
    "normal": Priority.NORMAL,
    "batch": Priority.BATCH,
}

PRIORITY_FORMS: Final = (*PRIORITY_NAMES, *(str(level) for level in range(Priority.LEVELS)))
"""Everything that ``Priority.named`` reads."""


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


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
    """One turn of the conversation, its parts in the client's order.

    ``calls``: those that the assistant made. ``call_id``: the call whose result a tool's turn has.
    """

    role: Role
    parts: tuple[Part, ...]
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        raw: dict[str, Any] = {
            "role": self.role.value,
            "parts": [_part_to_dict(part) for part in self.parts],
        }
        if self.calls:
            raw["calls"] = [[one.call_id, one.name, one.arguments] for one in self.calls]
        if self.call_id is not None:
            raw["call_id"] = self.call_id
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Message:
        """Read the JSON form. Raises KeyError, TypeError or ValueError when it is not one."""
        return cls(
            Role(raw["role"]),
            tuple(_part_from_dict(part) for part in raw["parts"]),
            tuple(ToolCall(*map(str, call)) for call in raw.get("calls", ())),
            raw.get("call_id"),
        )


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
    """How the next token is chosen, when to stop, and what to tell of it. The names are vLLM's.

    Attributes:
        max_tokens: most tokens of an answer.
        temperature: 0 is greedy.
        top_p: the likeliest tokens that hold this share of the mass are kept; 1 keeps all.
        top_k: so many of the likeliest tokens are kept; 0 keeps all.
        min_p: tokens at least this share as likely as the likeliest are kept; 0 keeps all.
        repetition_penalty: divides a positive logit, multiplies a negative one, of every token
            that stands in the prompt or the answer; 1 does nothing.
        presence_penalty: taken from the logit of every token of the answer.
        frequency_penalty: taken from it once for every time that the token stands there.
        seed: the same seed gives the same answer; None: drawn when the request is prepared.
        stop: texts before which the answer ends.
        stop_token_ids: tokens at which the answer ends, beside the model's own.
        min_tokens: neither of the ends above comes before so many tokens.
        ignore_eos: the model's own end tokens are tokens like others.
        logprobs: None: none are told; else those of each token and of so many of the likeliest.
        n: answers to give.
        constraint: what the answer must look like.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    n: int = 1
    constraint: Constraint | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: what is not as it is by default."""
        raw = {
            name: value for name, plain in _PLAIN.items() if (value := getattr(self, name)) != plain
        }
        for name in raw.keys() & {"stop", "stop_token_ids"}:
            raw[name] = list(raw[name])
        if self.constraint is not None:
            raw["constraint"] = self.constraint.to_dict()
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SamplingParams:
        """Read the JSON form. Raises KeyError, TypeError or ValueError when it is not one."""
        constraint = raw.get("constraint")
        return cls(
            **{
                **raw,
                "stop": tuple(raw.get("stop", ())),
                "stop_token_ids": tuple(raw.get("stop_token_ids", ())),
                "constraint": None if constraint is None else Constraint.from_dict(constraint),
            }
        )


_PLAIN = {one.name: one.default for one in fields(SamplingParams)}
_PLAIN_SAMPLING = SamplingParams()


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One admitted request for one answer.

    ``raw``: the messages' text is the prompt itself, to be gone on with; no chat template is put
    around it. ``tools``: functions that the model may call.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = _PLAIN_SAMPLING
    raw: bool = False
    tools: ToolUse | None = None

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
            **({"raw": True} if self.raw else {}),
            **({} if self.tools is None else {"tools": self.tools.to_dict()}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> InferenceRequest:
        """Read the JSON form. Raises KeyError, TypeError or ValueError when it is not one."""
        return cls(
            model=raw["model"],
            messages=tuple(Message.from_dict(message) for message in raw["messages"]),
            sampling=SamplingParams.from_dict(raw["sampling"]),
            raw=bool(raw.get("raw", False)),
            tools=None if raw.get("tools") is None else ToolUse.from_dict(raw["tools"]),
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a leased task runs.

    ``deadline``: seconds on this process's ``time.monotonic``. ``trace``: its request's.
    """

    priority: Priority = Priority.NORMAL
    deadline: float = math.inf
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request will take of the device, in tokens, known before any picture is decoded.

    ``output_tokens``: of each of its ``choices``.
    """

    visual_tokens: int
    text_tokens: int
    output_tokens: int
    choices: int = 1

    @property
    def total(self) -> int:
        """Tokens of KV cache that the request may come to hold."""
        return self.choices * (self.visual_tokens + self.text_tokens + self.output_tokens)
