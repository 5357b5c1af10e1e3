"""Functions on offer, and calls of them, in a chat request as OpenAI clients send them."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from forebay.api.sampling_form import StrictForm
from forebay.core.constraint import Constraint
from forebay.core.errors import InvalidConstraintError, InvalidRequestError
from forebay.core.request import SamplingParams
from forebay.core.tools import Tool, ToolCall, ToolUse
from forebay.grammars import fault_of

MOST_TOOLS: Final = 128
MOST_CALLS: Final = 128
MOST_TOOL_CHARACTERS: Final = 2**18
"""Of all functions together: each request reads them several times."""

LONGEST_ID: Final = 256
DEEPEST: Final = 64
"""Objects and lists within each other, in the parameters of a function or the arguments of a call:
few enough to be walked through wherever that is done."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
CallId = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]


class FunctionForm(StrictForm):
    """A function. ``strict``: called by its schema's letter, though nothing demands a call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolForm(StrictForm):
    """Something that the model may use; functions are all there is."""

    type: Literal["function"]
    function: FunctionForm


class NamedFunction(StrictForm):
    """One of the functions."""

    name: Name


class ToolChoiceForm(StrictForm):
    """The function that must be called."""

    type: Literal["function"]
    function: NamedFunction


class CalledFunction(StrictForm):
    """What was called. ``arguments``: the text of a JSON object, or nothing."""

    name: Name
    arguments: str


class CallForm(StrictForm):
    """A call of an earlier answer, which may come as a stream's clients put it together."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


Tools = Annotated[list[ToolForm], Field(max_length=MOST_TOOLS, fail_fast=True)]
Calls = Annotated[list[CallForm], Field(max_length=MOST_CALLS, fail_fast=True)]
ToolChoice = Literal["none", "auto", "required"] | ToolChoiceForm


class OfferForm(StrictForm):
    """The fields that offer functions."""

    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


def tool_use(form: OfferForm) -> ToolUse | None:
    """Return what is on offer, None where nothing may be called.

    Raises:
        InvalidRequestError: two functions have one name, or the choice is none of them.
    """
    for at, tool in enumerate(form.tools or ()):
        _check_depth(tool.function.parameters, f"tools.{at}.function.parameters")
    tools = tuple(Tool.of(_spec(tool)) for tool in form.tools or ())
    choice = form.tool_choice
    named = choice.function.name if isinstance(choice, ToolChoiceForm) else None
    names = [tool.name for tool in tools]
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise InvalidRequestError(f"two of the tools are called {twice!r}", param="tools")
    size = sum(len(tool.spec) for tool in tools)
    if size > MOST_TOOL_CHARACTERS:
        raise InvalidRequestError(
            f"the tools take {size} characters, the limit is {MOST_TOOL_CHARACTERS}", param="tools"
        )
    if not tools and (named or choice == "required"):
        raise InvalidRequestError("tool_choice needs tools", param="tool_choice")
    if named is not None and named not in names:
        raise InvalidRequestError(f"none of the tools is called {named!r}", param="tool_choice")
    if not tools or choice == "none":
        return None
    parallel = form.parallel_tool_calls is not False
    return ToolUse(tools, required=choice == "required", named=named, parallel=parallel)


async def check_tools(use: ToolUse, sampling: SamplingParams) -> None:
    """Check what is on offer, as far as it can be without the model.

    Raises:
        InvalidRequestError: it does not go with one of the sampling parameters.
        InvalidConstraintError: calls by the functions' schemas cannot be followed.
    """
    if sampling.constraint is not None:
        raise InvalidRequestError(
            "tools do not go with a form that the whole answer must have: send one of the two, or "
            'tool_choice "none"',
            param="tools",
        )
    constraint = Constraint.calls(use)
    if constraint is None:
        return
    if sampling.min_tokens or sampling.ignore_eos:
        raise InvalidRequestError(
            "where calls must have a form, that says itself where an answer may end: it goes with "
            "neither min_tokens nor ignore_eos",
            param="min_tokens" if sampling.min_tokens else "ignore_eos",
        )
    # as for other constraints: other clients must not wait for a hostile one
    fault = await asyncio.to_thread(fault_of, constraint)
    if fault is not None:
        raise InvalidConstraintError(f"tools: {fault}", param="tools")


def to_call(form: CallForm, param: str) -> ToolCall:
    """Return a call of the conversation. Raises InvalidRequestError naming ``param``."""
    called = form.function
    return read_call(form.id, called.name, called.arguments, f"{param}.function.arguments")


def read_call(call_id: str, name: str, arguments: str, param: str) -> ToolCall:
    """Return a call. Raises InvalidRequestError where ``param``, its arguments, are no object."""
    try:
        read = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise InvalidRequestError(f"{param} must be the text of a JSON object", param=param)
    _check_depth(read, param)
    return ToolCall(call_id, name, arguments or "{}")


def _spec(tool: ToolForm) -> dict[str, Any]:
    """Return a function as the client wrote it; what is null says nothing."""
    function = tool.function.model_dump(exclude_unset=True)
    told = {name: value for name, value in function.items() if value is not None}
    return {"type": tool.type, "function": told}


def _check_depth(value: Any, param: str) -> None:
    """Raise InvalidRequestError where a JSON value is nested too deeply."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    if level:
        raise InvalidRequestError(f"{param} is nested over {DEEPEST} levels deep", param=param)
