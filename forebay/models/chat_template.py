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
from forebay.models.errors import CorruptFileError, MissingFileError
from forebay.models.files import read_json

TEMPLATE_FILE = "chat_template.jinja"
_CONFIG_FILES = ("chat_template.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A checkpoint's chat template, compiled. Safe to use from several threads."""

    template: jinja2.Template

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate:
        """Read ``chat_template.jinja``, or the template inside one of the older JSON files.

        Raises:
            MissingFileError: no file of the folder holds a template.
            CorruptFileError: the template does not compile.
        """
        path, source = _find(folder)
        try:
            return cls(_environment().from_string(source))
        except jinja2.TemplateError as error:
            raise CorruptFileError(path, f"the chat template does not compile: {error}") from error

    def render(
        self, messages: Sequence[Message], guard: Callable[[str], str] = lambda text: text
    ) -> str:
        """Return the prompt's text, ending where the assistant is to speak.

        Args:
            messages: the conversation.
            guard: applied to every text that a client wrote.

        Raises:
            InvalidRequestError: the template refuses the conversation.
        """
        turns = [_turn(message, guard) for message in messages]
        try:
            return self.template.render(messages=turns, add_generation_prompt=True)
        except (jinja2.TemplateError, TypeError) as error:
            raise InvalidRequestError(
                f"the model's chat template refuses these messages: {error}"
            ) from error


def _turn(message: Message, guard: Callable[[str], str]) -> dict[str, Any]:
    return {"role": message.role.value, "content": _content(message, guard)}


def _content(message: Message, guard: Callable[[str], str]) -> str | list[dict[str, str]]:
    """Parts for a user's turn with several, one string otherwise: templates print the latter."""
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    only_text = len(texts) == len(message.parts)
    if only_text and (message.role is not Role.USER or len(texts) <= 1):
        return "".join(guard(text) for text in texts)
    return [_part(part, guard) for part in message.parts]


def _part(part: Part, guard: Callable[[str], str]) -> dict[str, str]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": guard(text)}
        case ImagePart():
            return {"type": "image"}


def _find(folder: Path) -> tuple[Path, str]:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return path, path.read_text(encoding="utf-8")
    for name in _CONFIG_FILES:
        path = folder / name
        source = _from_json(path) if path.is_file() else None
        if source is not None:
            return path, source
    raise MissingFileError(
        folder / TEMPLATE_FILE, "the checkpoint has no chat template; download it whole"
    )


def _from_json(path: Path) -> str | None:
    found = read_json(path).get("chat_template")
    if isinstance(found, list):  # several named templates
        named = {entry.get("name"): entry.get("template") for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)
