"""A request in the form that OpenAI-compatible servers take."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from forebay.core.constraint import Constraint, ConstraintKind
from forebay.core.errors import InvalidRequestError, TaskFailedError
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Part,
    SamplingParams,
    TextPart,
)
from forebay.core.tools import ToolCall, ToolUse

_Put = Callable[[Any], dict[str, Any]]


def _always(name: str) -> _Put:
    return lambda value: {name: value}


def _unless(name: str, default: object) -> _Put:
    """Send what is not the default: a server that does not know the field then never sees it."""
    return lambda value: {} if value == default else {name: value}


def _form(constraint: Constraint) -> dict[str, Any]:
    """Return what asks for a form of answer; a server that does not know the field ignores it."""
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            schema = {"name": "answer", "schema": json.loads(constraint.text), "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case ConstraintKind.REGEX:
            return {"structured_outputs": {"regex": constraint.text}}
        case ConstraintKind.CHOICE:
            return {"structured_outputs": {"choice": json.loads(constraint.text)}}
        case ConstraintKind.CALLS:
            raise ValueError("calls are demanded by tool_choice, not by a constraint")


SAMPLING: Final[Mapping[str, _Put]] = {
    "max_tokens": _always("max_tokens"),
    "temperature": _always("temperature"),
    "top_p": _unless("top_p", 1.0),
    "top_k": _unless("top_k", 0),
    "min_p": _unless("min_p", 0.0),
    "repetition_penalty": _unless("repetition_penalty", 1.0),
    "presence_penalty": _unless("presence_penalty", 0.0),
    "frequency_penalty": _unless("frequency_penalty", 0.0),
    "seed": _unless("seed", None),
    "stop": _unless("stop", ()),
    "stop_token_ids": _unless("stop_token_ids", ()),
    "min_tokens": _unless("min_tokens", 0),
    "ignore_eos": _unless("ignore_eos", False),
    "logprobs": lambda top: {} if top is None else {"logprobs": True, "top_logprobs": top},
    "n": _unless("n", 1),
    "constraint": lambda value: {} if value is None else _form(value),
}
"""How each field of ``SamplingParams`` is sent: by OpenAI's names, and vLLM's for the rest."""


def request_body(model: str, request: InferenceRequest, images: Mapping[str, bytes]) -> bytes:
    """Return the JSON body of a streamed chat completion, pictures as data URLs.

    Raises:
        TaskFailedError: a picture's bytes are not in ``images``.
        InvalidRequestError: the prompt is to have no chat template, and the server's puts one.
    """
    if request.raw:
        raise InvalidRequestError(
            "the server behind this one takes conversations only: use /v1/chat/completions",
            param="prompt",
        )
    body = {
        "model": model,
        "messages": [_message(message, images) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling_fields(request.sampling),
        **({} if request.tools is None else _tools(request.tools)),
    }
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def sampling_fields(sampling: SamplingParams) -> dict[str, Any]:
    """Return the request's fields that say how tokens are chosen."""
    fields: dict[str, Any] = {}
    for name, put in SAMPLING.items():
        fields.update(put(getattr(sampling, name)))
    return fields


def _tools(use: ToolUse) -> dict[str, Any]:
    """Return the fields that offer functions; what is so by default is not sent."""
    fields: dict[str, Any] = {"tools": [json.loads(tool.spec) for tool in use.tools]}
    if use.named is not None:
        fields["tool_choice"] = {"type": "function", "function": {"name": use.named}}
    elif use.required:
        fields["tool_choice"] = "required"
    return fields if use.parallel else {**fields, "parallel_tool_calls": False}


def _message(message: Message, images: Mapping[str, bytes]) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role.value, "content": _content(message, images)}
    if message.calls:
        sent["tool_calls"] = [_call(call) for call in message.calls]
    if message.call_id is not None:
        sent["tool_call_id"] = message.call_id
    return sent


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _content(message: Message, images: Mapping[str, bytes]) -> Any:
    match message.parts:
        case ():
            return None if message.calls else ""
        case (TextPart(text),):  # a string: some chat templates take no list for the system's turn
            return text
        case parts:
            return [_part(part, images) for part in parts]


def _part(part: Part, images: Mapping[str, bytes]) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": _data_url(part, images)}}


def _data_url(part: ImagePart, images: Mapping[str, bytes]) -> str:
    content = images.get(part.sha256)
    if content is None:
        raise TaskFailedError(f"the bytes of picture {part.sha256} are no longer stored")
    # the door writes every picture anew as JPEG
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"
