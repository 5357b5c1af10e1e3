"""Functions on offer and calls of them, as requests for a response have them: flatter than chat's.

Read into chat's forms, so that what holds there holds here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from forebay.api.sampling_form import StrictForm
from forebay.api.tools_form import (
    MOST_TOOLS,
    CallId,
    FunctionForm,
    Name,
    NamedFunction,
    OfferForm,
    ToolChoice,
    ToolChoiceForm,
    ToolForm,
    tool_use,
)
from forebay.core.errors import InvalidRequestError
from forebay.core.tools import ToolUse

MOST_TOLD: Final = 65_536
"""Characters of all functions together: a response repeats them, so they are kept with it."""


class ResponseTool(StrictForm):
    """A function; ``strict`` as in chat. Tools of other types run where OpenAI runs."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseToolChoice(StrictForm):
    """The function that must be called."""

    type: Literal["function"]
    name: Name


class CallItem(StrictForm):
    """A call of an earlier answer, as a client echoes it."""

    type: Literal["function_call"]
    call_id: CallId
    name: Name
    arguments: str
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class ResultText(StrictForm):
    """A piece of a call's result."""

    type: Literal["input_text"]
    text: str


class ResultItem(StrictForm):
    """The result of a call before it."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: str | Annotated[list[ResultText], Field(max_length=1000, fail_fast=True)]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class ResponseOffer(StrictForm):
    """The fields that offer functions."""

    tools: Annotated[list[ResponseTool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None


def response_tools(form: ResponseOffer) -> ToolUse | None:
    """Return what is on offer, None where nothing may be called.

    Raises:
        InvalidRequestError: as ``tool_use``, or the functions take more room than a response has.
    """
    use = tool_use(_chats(form))
    size = sum(len(tool.spec) for tool in use.tools) if use else 0
    if size > MOST_TOLD:
        raise InvalidRequestError(
            f"the tools take {size} characters, the limit of a response is {MOST_TOLD}",
            param="tools",
        )
    return use


def offer_terms(form: ResponseOffer) -> dict[str, Any]:
    """Return the fields of the response's object that repeat the offer."""
    plain = form.model_dump(include=set(ResponseOffer.model_fields), exclude_unset=True)
    return {
        "tools": plain.get("tools") or [],
        "tool_choice": plain.get("tool_choice") or ("auto" if form.tools else "none"),
        "parallel_tool_calls": form.parallel_tool_calls is not False,
    }


def use_of(terms: Mapping[str, Any]) -> ToolUse | None:
    """Return what was on offer, by the terms that a response repeats."""
    return tool_use(_chats(ResponseOffer.model_validate({name: terms[name] for name in _OFFER})))


_OFFER: Final = ("tools", "tool_choice", "parallel_tool_calls")


def _chats(form: ResponseOffer) -> OfferForm:
    choice: ToolChoice | None = None
    if isinstance(form.tool_choice, ResponseToolChoice):
        named = NamedFunction(name=form.tool_choice.name)
        choice = ToolChoiceForm(type="function", function=named)
    else:
        choice = form.tool_choice
    return OfferForm(
        tools=_tools(form), tool_choice=choice, parallel_tool_calls=form.parallel_tool_calls
    )


def _tools(form: ResponseOffer) -> list[ToolForm]:
    return [
        ToolForm(
            type="function",
            function=FunctionForm(**tool.model_dump(exclude={"type"}, exclude_unset=True)),
        )
        for tool in form.tools or ()
    ]
