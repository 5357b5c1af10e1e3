"""The fields that say how an answer is sampled: OpenAI's, and vLLM's by the same names."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forebay.api.services import DoorSettings
from forebay.core.constraint import Constraint
from forebay.core.errors import InvalidConstraintError, InvalidRequestError
from forebay.core.request import SamplingParams
from forebay.grammars import TOO_DEEP, fault_of

MOST_STOPS: Final = 4
LONGEST_STOP: Final = 500
"""Characters of a stop string: it rides in the queue and is compared with every token."""

MOST_STOP_IDS: Final = 64
MOST_TOP_LOGPROBS: Final = 20

MOST_LOGPROBS: Final = 65_536
"""Log-probabilities of one request: answers, times tokens, times alternatives. They are kept with
the result, some 30 bytes each."""

_SEED_BITS: Final = 63


class StrictForm(BaseModel):
    """A form that takes no unknown field and turns no text into a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class JsonSchemaFormat(StrictForm):
    """A schema with its name, as OpenAI has it. It is always followed to the letter."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(StrictForm):
    """OpenAI's way to ask for JSON."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(StrictForm):
    """vLLM's way to ask for a form; one of the four."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    json_object: bool | None = None


class SamplingForm(StrictForm):
    """What every contract that samples takes. None is the default of each."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    stop_token_ids: (
        Annotated[
            list[Annotated[int, Field(ge=0, lt=2**31)]],
            Field(max_length=MOST_STOP_IDS, fail_fast=True),
        ]
        | None
    ) = None
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(fail_fast=True)] | None = None


LISTS: Final = frozenset({"stop", "stop_token_ids", "guided_choice"})
OBJECTS: Final = frozenset({"response_format", "structured_outputs", "guided_json"})

F = TypeVar("F", bound=SamplingForm)


def texts_of(items: Iterable[tuple[str, object]], but: Collection[str]) -> dict[str, list[str]]:
    """Return a form's fields but those named. Raises InvalidRequestError where one is a file."""
    texts: dict[str, list[str]] = {}
    for name, value in items:
        if name in but:
            continue
        if not isinstance(value, str):
            raise InvalidRequestError(f"{name} must be text, not a file", param=name)
        texts.setdefault(name, []).append(value)
    return texts


def form_of_texts(
    form: type[F], texts: Mapping[str, Sequence[str]], objects: frozenset[str] = OBJECTS
) -> F:
    """Read the fields from a form of texts, where a list is a field sent several times.

    ``objects``: the fields that are JSON.

    Raises:
        InvalidRequestError: naming the field, and what it may be.
    """
    raw: dict[str, Any] = {}
    for name, values in texts.items():
        if name in LISTS:
            raw[name] = list(values)
        elif len(values) > 1:
            raise InvalidRequestError(f"{name} is there {len(values)} times", param=name)
        else:
            raw[name] = _json(values[0], name) if name in objects else values[0]
    try:
        return form.model_validate(raw, strict=False)
    except ValidationError as error:
        raise refusal(error) from error


def refusal(error: ValidationError) -> InvalidRequestError:
    """Return the error that names the first field that is not as it must be."""
    # of the branches of a union, the one that got furthest says the most
    first = max(
        error.errors(include_url=False, include_input=False), key=lambda one: len(one["loc"])
    )
    names = [str(part) for part in first["loc"] if not _BRANCH.match(str(part))]
    field = ".".join(names)
    return InvalidRequestError(f"{field}: {first['msg']}", param=field)


_BRANCH: Final = re.compile(
    r"(str|(list|dict|literal)\[.*\]|(Text|Image)Content|Input(Text|Image)|OutputText"
    r"|ToolChoiceForm|ResponseToolChoice|message|function_call(_output)?)$"
)
"""What pydantic writes into a place for the branch of a union that it tried; no field has such a
name but chat's ``function_call``, which has none below it."""


async def sampling_params(form: SamplingForm, settings: DoorSettings) -> SamplingParams:
    """Return the parameters that a form asks for, checked as far as they can be without the model.

    Raises:
        InvalidRequestError: naming the field, and what it may be.
        InvalidConstraintError: saying what is wrong with the schema, expression or list.
    """
    max_tokens = settings.max_tokens_default if form.max_tokens is None else form.max_tokens
    if max_tokens > settings.max_tokens_limit:
        raise InvalidRequestError(
            f"max_tokens is {max_tokens}, it must be from 1 to {settings.max_tokens_limit}",
            param="max_tokens",
        )
    if form.min_tokens and form.min_tokens > max_tokens:
        raise InvalidRequestError(
            f"min_tokens is {form.min_tokens}, over max_tokens, which is {max_tokens}",
            param="min_tokens",
        )
    constraint = await _checked_constraint(form)
    if constraint is not None and (form.min_tokens or form.ignore_eos):
        raise InvalidRequestError(
            "a constraint says itself where an answer may end: it goes with neither min_tokens "
            "nor ignore_eos",
            param="min_tokens" if form.min_tokens else "ignore_eos",
        )
    given = {name: value for name in _PLAIN_FIELDS if (value := getattr(form, name)) is not None}
    return SamplingParams(
        **given,
        max_tokens=max_tokens,
        top_k=max(0, form.top_k or 0),
        # Drawn once, here: a second attempt must go on with the words that a stream has shown.
        seed=secrets.randbits(_SEED_BITS) if form.seed is None else form.seed,
        stop=_stop(form),
        stop_token_ids=tuple(form.stop_token_ids or ()),
        constraint=constraint,
    )


_PLAIN_FIELDS = (
    "temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "min_tokens", "ignore_eos",
)  # fmt: skip


def check_logprobs(params: SamplingParams, param: str = "top_logprobs") -> None:
    """Raise InvalidRequestError, naming ``param``, where one request may not have so many kept."""
    wanted = 0 if params.logprobs is None else params.n * params.max_tokens * (params.logprobs + 1)
    if wanted > MOST_LOGPROBS:
        raise InvalidRequestError(
            f"n * max_tokens * ({param} + 1) is {wanted}, at most {MOST_LOGPROBS} "
            "log-probabilities are kept for a request",
            param=param,
        )


def _stop(form: SamplingForm) -> tuple[str, ...]:
    stop = (form.stop,) if isinstance(form.stop, str) else tuple(form.stop or ())
    if len(stop) > MOST_STOPS or not all(1 <= len(one) <= LONGEST_STOP for one in stop):
        raise InvalidRequestError(
            f"stop takes up to {MOST_STOPS} strings of 1 to {LONGEST_STOP} characters", param="stop"
        )
    return stop


async def _checked_constraint(form: SamplingForm) -> Constraint | None:
    try:
        found = _constraints(form)
    except RecursionError as error:
        raise InvalidConstraintError(TOO_DEEP) from error
    if not found:
        return None
    (param, constraint), *more = found.items()
    if more:
        raise InvalidRequestError(
            f"{param} and {more[0][0]} both constrain the answer; send one", param=more[0][0]
        )
    # a hostile one takes a good part of a second: other clients must not wait for it
    fault = await asyncio.to_thread(fault_of, constraint)
    if fault is not None:
        raise InvalidConstraintError(f"{param}: {fault}", param=param)
    return constraint


def _constraints(form: SamplingForm) -> dict[str, Constraint]:
    """Return the constraint of every field that has one."""
    found = dict(_response_format(form.response_format))
    if form.guided_json is not None:
        found["guided_json"] = _schema(form.guided_json, "guided_json")
    if form.guided_regex is not None:
        found["guided_regex"] = Constraint.regex(form.guided_regex)
    if form.guided_choice is not None:
        found["guided_choice"] = _choice(form.guided_choice, "guided_choice")
    if (wanted := form.structured_outputs) is not None:
        if wanted.json_ is not None:
            name = "structured_outputs.json"
            found[name] = _schema(wanted.json_, name)
        if wanted.regex is not None:
            found["structured_outputs.regex"] = Constraint.regex(wanted.regex)
        if wanted.choice is not None:
            name = "structured_outputs.choice"
            found[name] = _choice(wanted.choice, name)
        if wanted.json_object:
            found["structured_outputs.json_object"] = Constraint.json_object()
    return found


def _response_format(wanted: ResponseFormat | None) -> list[tuple[str, Constraint]]:
    if wanted is None or wanted.type == "text":
        return []
    if wanted.type == "json_object":
        return [("response_format", Constraint.json_object())]
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        param = "response_format.json_schema"
        raise InvalidRequestError(f"{param} must have a schema", param=param)
    return [("response_format", Constraint.json_schema(wanted.json_schema.schema_))]


def _schema(given: Any, param: str) -> Constraint:
    if isinstance(given, str):
        given = _json(given, param)
    if not isinstance(given, dict):
        raise InvalidRequestError(f"{param} must be a JSON schema, an object", param=param)
    return Constraint.json_schema(given)


def _json(text: str, param: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{param} is not valid JSON", param=param) from error


def _choice(texts: list[str], param: str) -> Constraint:
    if not texts:
        raise InvalidRequestError(f"{param} must have a text to choose", param=param)
    return Constraint.choice(texts)
