"""A chat completion request as OpenAI clients send it, read into the door's own words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from forebay.api.chat_fields import HONOURED, refuse_unsupported
from forebay.api.data_url import picture_in
from forebay.api.intake import Ask, Turn
from forebay.api.picture_urls import PictureUrl
from forebay.api.pictures import RawPicture
from forebay.api.sampling_form import (
    MOST_TOP_LOGPROBS,
    SamplingForm,
    StrictForm,
    check_logprobs,
    refusal,
    sampling_params,
)
from forebay.api.services import DoorSettings
from forebay.api.tools_form import CallId, Calls, OfferForm, check_tools, to_call, tool_use
from forebay.core.errors import InvalidRequestError
from forebay.core.request import Role, SamplingParams

LOW_DETAIL_SIDE = 512
"""Longest side, in pixels, of a picture sent with ``detail`` "low", as OpenAI documents it."""

MOST_MARKS: Final = 400_000
"""Commas, colons and opening brackets in a body, those inside texts included: more than any text
that fits a context has, and few enough to be read without holding up other clients."""

MOST_MESSAGES: Final = 1000
MOST_PARTS: Final = 1000
MOST_METADATA: Final = 16
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class TextContent(StrictForm):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(StrictForm):
    """Where a picture is: a data URL, plain base64, or a URL where these are fetched."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImageContent(StrictForm):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


Content = TextContent | ImageContent


class ChatMessage(StrictForm):
    """One turn. Fields that a client echoes from an answer are taken when they are empty.

    ``tool_call_id``, and ``name``, which says nothing more: of the call whose result this is.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Content], Field(max_length=MOST_PARTS, fail_fast=True)] | None = (
        None
    )
    tool_calls: Calls | None = None
    tool_call_id: CallId | None = None
    name: str | None = None
    refusal: None = None
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)


class StreamOptions(StrictForm):
    """Wishes for a streamed answer. Padding against eavesdroppers is not done, nor announced."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Messages = Annotated[
    list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
]


MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MOST_METADATA)]


class AnswersForm(SamplingForm):
    """What is asked of the answers, in a conversation of any contract.

    ``metadata`` is given back with the task.
    """

    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    metadata: Metadata | None = None


class ChatForm(AnswersForm, OfferForm):
    """The fields that are honoured; ``forebay.api.chat_fields`` has the others."""

    model: str
    messages: Messages
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    image_lossless: bool | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that counts tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


def read_chat_form(body: bytes) -> ChatForm:
    """Read and check a request's body.

    Raises:
        InvalidRequestError: not JSON, not of the documented form, or a field is not supported.
    """
    return chat_form(json_object(body))


def chat_form(raw: Mapping[str, Any]) -> ChatForm:
    """Check a request's fields. Raises InvalidRequestError."""
    refuse_unsupported(raw)
    known = {name: value for name, value in raw.items() if name in HONOURED}
    try:
        form = ChatForm.model_validate(known)
    except ValidationError as error:
        raise refusal(error) from error
    check_stream_options(form.stream, form.stream_options)
    return form


def check_stream_options(stream: bool | None, options: StreamOptions | None) -> None:
    """Raise InvalidRequestError where a stream's options are given and no stream is asked for."""
    if options is not None and not stream:
        raise InvalidRequestError("stream_options needs stream to be true", param="stream_options")


def json_object(body: bytes) -> dict[str, Any]:
    """Parse a request's body, in bounded time.

    Raises:
        InvalidRequestError: not a JSON object, or one of very many values.
    """
    if sum(map(body.count, (b",", b":", b"[", b"{"))) > MOST_MARKS:
        raise InvalidRequestError("the body has too many fields, values or marks")
    try:
        text = body.decode("utf-8-sig")
        raw = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(raw, ensure_ascii=False).encode()  # half of a pair is no character
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not valid JSON") from error
    if not isinstance(raw, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return raw


async def chat_sampling(form: AnswersForm, settings: DoorSettings) -> SamplingParams:
    """Return the sampling parameters of a conversation.

    Raises:
        InvalidRequestError, InvalidConstraintError: as ``sampling_params``; too many answers or
            log-probabilities.
    """
    if form.max_completion_tokens is not None:
        form = form.model_copy(update={"max_tokens": form.max_completion_tokens})
    n = form.n or 1
    if n > settings.max_choices:
        raise InvalidRequestError(
            f"n is {n}, it must be from 1 to {settings.max_choices}", param="n"
        )
    if form.top_logprobs is not None and not form.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    logprobs = (form.top_logprobs or 0) if form.logprobs else None
    params = replace(await sampling_params(form, settings), n=n, logprobs=logprobs)
    check_logprobs(params)
    return params


async def chat_ask(form: ChatForm, settings: DoorSettings) -> Ask:
    """Return the request with its pictures' bytes.

    Raises:
        InvalidRequestError: as ``chat_sampling``, ``tool_use`` and ``to_turns``.
        InvalidConstraintError: as ``chat_sampling`` and ``check_tools``.
    """
    sampling, use = await chat_sampling(form, settings), tool_use(form)
    if use is not None:
        await check_tools(use, sampling)
    return Ask(
        turns=to_turns(form.messages, lossless=bool(form.image_lossless)),
        sampling=sampling,
        model=form.model,
        metadata=form.metadata or {},
        tools=use,
    )


def to_turns(messages: Sequence[ChatMessage], *, lossless: bool = False) -> tuple[Turn, ...]:
    """Return a conversation with its pictures' bytes.

    Raises:
        InvalidRequestError: a picture's URL cannot be read, a turn has what its role may not have,
            or a result is of no call.
    """
    called = set[str]()
    for at, message in enumerate(messages):
        _check_fields(message, f"messages.{at}", called)
        called.update(call.id for call in message.tool_calls or ())
    return tuple(_turn(message, index, lossless) for index, message in enumerate(messages))


def _check_fields(message: ChatMessage, param: str, called: AbstractSet[str]) -> None:
    """Check what a message has against its role. ``called``: the ids of the calls before it."""
    role = message.role
    result = message.tool_call_id is not None
    if message.tool_calls and role != "assistant":
        raise InvalidRequestError("only the assistant calls tools", param=f"{param}.tool_calls")
    if result is not (role == "tool"):
        what = "must say which call its result is of" if role == "tool" else "has no call's result"
        raise InvalidRequestError(f"a message of {role} {what}", param=f"{param}.tool_call_id")
    if result and message.tool_call_id not in called:
        raise InvalidRequestError(
            "no call before this message has this id", param=f"{param}.tool_call_id"
        )
    if message.name is not None and role != "tool":
        raise InvalidRequestError(f"a message of {role} has no name", param=f"{param}.name")
    if message.content is None and not message.tool_calls:
        raise InvalidRequestError("the message has no content", param=f"{param}.content")


def _turn(message: ChatMessage, index: int, lossless: bool) -> Turn:
    role = Role.SYSTEM if message.role == "developer" else Role(message.role)
    calls = tuple(
        to_call(call, f"messages.{index}.tool_calls.{at}")
        for at, call in enumerate(message.tool_calls or ())
    )
    parts = _parts(message, role, index, lossless)
    return Turn(role, parts, calls, message.tool_call_id)


def _parts(
    message: ChatMessage, role: Role, index: int, lossless: bool
) -> tuple[str | RawPicture | PictureUrl, ...]:
    if message.content is None:
        return ()
    if isinstance(message.content, str):
        return (message.content,)
    parts: list[str | RawPicture | PictureUrl] = []
    for at, content in enumerate(message.content):
        if isinstance(content, TextContent):
            parts.append(content.text)
            continue
        param = f"messages.{index}.content.{at}.image_url.url"
        if role is not Role.USER:
            raise InvalidRequestError("only a user's message may hold a picture", param=param)
        side = LOW_DETAIL_SIDE if content.image_url.detail == "low" else None
        parts.append(picture_in(content.image_url.url, param, side=side, lossless=lossless))
    return tuple(parts)
