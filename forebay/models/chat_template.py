"""From messages to the prompt's text, through the template that the checkpoint brings.

Source: ``apply_chat_template`` of Hugging Face ``transformers``. The template is other people's
code: it runs in jinja2's immutable sandbox.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from forebay.core.errors import InvalidRequestError
from forebay.core.request import ImagePart, Message, Part, Role, TextPart
from forebay.core.template_files import (
    CONFIG_FILES,
    NO_TOOLS,
    TEMPLATE_FILE,
    has_tools,
    template_in,
)
from forebay.core.tools import Tool, ToolCall
from forebay.models.errors import CorruptFileError, MissingFileError
from forebay.models.files import read_json

Guard = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A checkpoint's chat template, compiled. Safe to use from several threads.

    ``has_tools``: it prints functions, and calls in the form that is read here.
    """

    template: jinja2.Template
    has_tools: bool = False

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate:
        """Read ``chat_template.jinja``, or the template inside one of the older JSON files.

        Raises:
            MissingFileError: no file of the folder holds a template.
            CorruptFileError: the template does not compile.
        """
        path, source = _find(folder)
        try:
            return cls(_environment().from_string(source), has_tools(source))
        except jinja2.TemplateError as error:
            raise CorruptFileError(path, f"the chat template does not compile: {error}") from error

    def render(
        self,
        messages: Sequence[Message],
        guard: Guard = lambda text: text,
        tools: Sequence[Tool] = (),
    ) -> str:
        """Return the prompt's text, ending where the assistant is to speak.

        Args:
            messages: the conversation.
            guard: applied to every text that a client wrote.
            tools: functions that the model may call.

        Raises:
            InvalidRequestError: the template refuses the conversation, or knows no functions.
        """
        if not self.has_tools and (tools or any(map(_of_tools, messages))):
            raise InvalidRequestError(NO_TOOLS, param="tools" if tools else "messages")
        turns = [_turn(message, guard) for message in messages]
        offered = [_guarded(json.loads(tool.spec), guard) for tool in tools]
        try:
            return self.template.render(
                messages=turns, tools=offered or None, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise InvalidRequestError(
                f"the model's chat template refuses these messages: {error}"
            ) from error


def _of_tools(message: Message) -> bool:
    return bool(message.calls) or message.role is Role.TOOL


def _turn(message: Message, guard: Guard) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role.value, "content": _content(message, guard)}
    if message.calls:
        turn["tool_calls"] = [_call(one, guard) for one in message.calls]
    if message.call_id is not None:
        turn["tool_call_id"] = guard(message.call_id)
    return turn


def _call(call: ToolCall, guard: Guard) -> dict[str, Any]:
    """Return a call as templates take it: its arguments as an object."""
    arguments = _guarded(json.loads(call.arguments), guard)
    function = {"name": guard(call.name), "arguments": arguments}
    return {"id": guard(call.call_id), "type": "function", "function": function}


def _guarded(value: Any, guard: Guard) -> Any:
    """Return a JSON value with every text in it guarded, names too."""
    if isinstance(value, str):
        return guard(value)
    if isinstance(value, dict):
        return {guard(name): _guarded(one, guard) for name, one in value.items()}
    return [_guarded(one, guard) for one in value] if isinstance(value, list) else value


def _content(message: Message, guard: Guard) -> str | list[dict[str, str]]:
    """Parts for a user's turn with several, one string otherwise: templates print the latter."""
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    only_text = len(texts) == len(message.parts)
    if only_text and (message.role is not Role.USER or len(texts) <= 1):
        return "".join(guard(text) for text in texts)
    return [_part(part, guard) for part in message.parts]


def _part(part: Part, guard: Guard) -> dict[str, str]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": guard(text)}
        case ImagePart():
            return {"type": "image"}


def _find(folder: Path) -> tuple[Path, str]:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path, path.read_text(encoding="utf-8")
    for name in CONFIG_FILES:
        path = folder / name
        source = template_in(read_json(path)) if path.is_file() else None
        if source is not None:
            return path, source
    raise MissingFileError(
        folder / TEMPLATE_FILE, "the checkpoint has no chat template; download it whole"
    )


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    del ensure_ascii  # letters stay letters: the guard's marks must come through
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)
