"""A response's request as OpenAI clients send it, read into the door's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from forebay.api.chat_fields import refuse_unsupported
from forebay.api.chat_form import MOST_MESSAGES, Metadata
from forebay.api.intake import Ask, Turn
from forebay.api.responses.conversation import conversation
from forebay.api.responses.input_form import InputItem
from forebay.api.responses.tools_form import ResponseOffer, offer_terms, response_tools
from forebay.api.sampling_form import (
    MOST_TOP_LOGPROBS,
    JsonSchemaFormat,
    ResponseFormat,
    SamplingForm,
    StrictForm,
    check_logprobs,
    refusal,
    sampling_params,
)
from forebay.api.services import DoorSettings
from forebay.api.tools_form import check_tools
from forebay.core.errors import InvalidConstraintError, InvalidRequestError
from forebay.core.request import Role, SamplingParams

LONGEST_INSTRUCTIONS: Final = 65_536
"""Characters. A response repeats them, so they are kept with it."""

LOGPROBS: Final = "message.output_text.logprobs"


class TextFormat(StrictForm):
    """The form that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextTerms(StrictForm):
    """What is asked of the text."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(StrictForm):
    """Padding against eavesdroppers is not done, nor announced."""

    include_obfuscation: Literal[False] | None = None


class ResponseForm(ResponseOffer):
    """The fields that are honoured."""

    model: str
    input: (
        str
        | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    )
    instructions: str | None = Field(default=None, max_length=LONGEST_INSTRUCTIONS)
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: TextTerms | None = None
    metadata: Metadata | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    background: bool | None = None
    store: bool | None = None

    @property
    def stored(self) -> bool:
        """Whether the response can be asked for later."""
        return self.store is not False


FIELDS: Final = frozenset(ResponseForm.model_fields)


def response_form(raw: Mapping[str, Any]) -> ResponseForm:
    """Check a request's fields. Raises InvalidRequestError."""
    refuse_unsupported(raw, FIELDS)
    try:
        form = ResponseForm.model_validate({k: v for k, v in raw.items() if k in FIELDS})
    except ValidationError as error:
        raise refusal(error) from error
    if form.stream_options is not None and not form.stream:
        raise InvalidRequestError("stream_options needs stream to be true", param="stream_options")
    if form.background and not form.stored:
        raise InvalidRequestError(
            "a response in the background is stored: leave store out", param="store"
        )
    if form.tools and form.include:
        raise InvalidRequestError(
            f'"{LOGPROBS}" does not go with tools: their calls have no text', param="include"
        )
    if form.top_logprobs is not None and not form.include:
        raise InvalidRequestError(f'top_logprobs needs "{LOGPROBS}" in include', param="include")
    return form


async def response_ask(form: ResponseForm, settings: DoorSettings) -> Ask:
    """Return the request with its pictures' bytes.

    Raises:
        InvalidRequestError, InvalidConstraintError: naming the field, and what it may be.
    """
    sampling, use = await _sampling(form, settings), response_tools(form)
    if use is not None:
        await check_tools(use, sampling)
    return Ask(
        turns=_turns(form),
        sampling=sampling,
        model=form.model,
        metadata=form.metadata or {},
        tools=use,
    )


def terms_of(form: ResponseForm, sampling: SamplingParams) -> dict[str, Any]:
    """Return the fields of the response's object that repeat what was asked."""
    wanted = form.text.format if form.text and form.text.format else TextFormat(type="text")
    return {
        "background": bool(form.background),
        "instructions": form.instructions,
        "max_output_tokens": form.max_output_tokens,
        "max_tool_calls": None,
        "metadata": form.metadata or {},
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": form.stored,
        "temperature": sampling.temperature,
        "text": {"format": wanted.model_dump(by_alias=True, exclude_none=True)},
        "top_logprobs": sampling.logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        **offer_terms(form),
    }


async def _sampling(form: ResponseForm, settings: DoorSettings) -> SamplingParams:
    most = settings.max_tokens_limit
    if form.max_output_tokens is not None and form.max_output_tokens > most:
        raise InvalidRequestError(
            f"max_output_tokens is {form.max_output_tokens}, it must be from 1 to {most}",
            param="max_output_tokens",
        )
    wanted = SamplingForm(
        max_tokens=form.max_output_tokens,
        temperature=form.temperature,
        top_p=form.top_p,
        response_format=_response_format(form),
    )
    try:
        params = await sampling_params(wanted, settings)
    except (InvalidRequestError, InvalidConstraintError) as error:
        if not (error.param or "").startswith(_CHATS_NAME):
            raise
        message = error.message.replace(_CHATS_NAME, _OWN_NAME)
        raise type(error)(message, param=_OWN_NAME) from error
    params = replace(params, logprobs=(form.top_logprobs or 0) if form.include else None)
    check_logprobs(params)
    return params


_CHATS_NAME, _OWN_NAME = "response_format", "text.format"


def _response_format(form: ResponseForm) -> ResponseFormat | None:
    wanted = form.text.format if form.text else None
    if wanted is None:
        return None
    schema = JsonSchemaFormat(schema=wanted.schema_) if wanted.type == "json_schema" else None
    return ResponseFormat(type=wanted.type, json_schema=schema)


def _turns(form: ResponseForm) -> tuple[Turn, ...]:
    first = [] if form.instructions is None else [Turn(Role.SYSTEM, (form.instructions,))]
    if isinstance(form.input, str):
        return (*first, Turn(Role.USER, (form.input,)))
    return (*first, *conversation(form.input))
