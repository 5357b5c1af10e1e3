"""What a response may be asked about: messages, earlier answers, calls and their results."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from forebay.api.chat_form import MOST_PARTS
from forebay.api.responses.tools_form import CallItem, ResultItem
from forebay.api.sampling_form import StrictForm


class InputText(StrictForm):
    """A piece of text."""

    type: Literal["input_text"]
    text: str


class OutputText(StrictForm):
    """A piece of an earlier answer, as a client echoes it."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = Field(default=None, max_length=0)
    logprobs: list[Any] | None = None


class InputImage(StrictForm):
    """A picture: a data URL, plain base64, or a URL where these are fetched."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high"] | None = None
    file_id: None = None


InputContent = InputText | OutputText | InputImage


class InputMessage(StrictForm):
    """One turn, or an earlier answer's item."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[InputContent], Field(max_length=MOST_PARTS, fail_fast=True)]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


def _kind(item: Any) -> str:
    """Return which item it is meant to be: a message need not say so."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return "message" if kind is None else str(kind)[:_LONGEST_KIND]


_LONGEST_KIND: Final = 64

InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(_kind),
]
