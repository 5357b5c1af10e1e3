"""A completion's request as OpenAI clients and load tools send it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from forebay.api.chat_fields import refuse_unsupported
from forebay.api.chat_form import Metadata, StreamOptions, check_stream_options
from forebay.api.intake import Ask, Turn
from forebay.api.sampling_form import (
    MOST_TOP_LOGPROBS,
    SamplingForm,
    check_logprobs,
    refusal,
    sampling_params,
)
from forebay.api.services import DoorSettings
from forebay.core.errors import InvalidRequestError
from forebay.core.request import Role

MOST_PROMPTS: Final = 64
_MAX_TOKENS: Final = 16
"""What OpenAI's contract has where nothing is said."""

Prompt = Annotated[str, Field(min_length=1)]


class CompletionForm(SamplingForm):
    """The fields that are honoured. ``logprobs``: how many of the likeliest tokens to tell of."""

    model: str
    prompt: (
        Prompt
        | Annotated[list[Prompt], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
    )
    n: int | None = Field(default=None, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None

    @property
    def prompts(self) -> list[str]:
        """Every prompt, in order."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that counts tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


FIELDS: Final = frozenset(CompletionForm.model_fields)


def completion_form(raw: Mapping[str, Any]) -> CompletionForm:
    """Check a request's fields. Raises InvalidRequestError."""
    _refuse_tokens(raw.get("prompt"))
    refuse_unsupported(_without_harmless_best_of(raw), FIELDS)
    try:
        form = CompletionForm.model_validate({k: v for k, v in raw.items() if k in FIELDS})
    except ValidationError as error:
        raise refusal(error) from error
    check_stream_options(form.stream, form.stream_options)
    if form.stream and len(form.prompts) > 1:
        raise InvalidRequestError(
            f"a stream has one prompt, not {len(form.prompts)}", param="prompt"
        )
    return form


async def completion_asks(form: CompletionForm, settings: DoorSettings) -> tuple[Ask, ...]:
    """Return a request for each prompt.

    Raises:
        InvalidRequestError, InvalidConstraintError: as ``sampling_params``; too many answers or
            log-probabilities.
    """
    n, most = form.n or 1, settings.max_choices
    if n > most:
        raise InvalidRequestError(f"n is {n}, it must be from 1 to {most}", param="n")
    if form.max_tokens is None:
        form = form.model_copy(update={"max_tokens": min(_MAX_TOKENS, settings.max_tokens_limit)})
    params = replace(await sampling_params(form, settings), n=n, logprobs=form.logprobs)
    check_logprobs(params, "logprobs")
    return tuple(
        Ask(
            turns=(Turn(Role.USER, (prompt,)),),
            sampling=params,
            model=form.model,
            metadata=form.metadata or {},
            raw=True,
        )
        for prompt in form.prompts
    )


def _refuse_tokens(prompt: Any) -> None:
    if isinstance(prompt, list) and any(isinstance(one, int | list) for one in prompt):
        raise InvalidRequestError(
            "prompt must be text; ids of tokens are not taken", param="prompt"
        )


def _without_harmless_best_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave ``best_of`` out where it asks for no more answers than are told (n, by default 1)."""
    if raw.get("best_of") == (raw.get("n") or 1):
        return {name: value for name, value in raw.items() if name != "best_of"}
    return raw
