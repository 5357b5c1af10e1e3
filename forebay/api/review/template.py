"""One prompt template, checked: how a prompt is known, what is asked, what may be answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from forebay.core.constraint import Constraint
from forebay.grammars import fault_of

LOOKED_AT: Final = 4000
"""Characters of a prompt in which patterns are searched for: what they cost must be bounded."""

PROMPT_MARK: Final = "{prompt}"
NO_TEMPLATE: Final = "none"
"""The name by which a client turns templates off for a prompt."""

_CHINESE: Final = re.compile(r"[\u3400-\u9fff]")

Word = Annotated[str, StringConstraints(pattern=r'^[^\s":：\\](?:[^\n":：\\]*[^\s":：\\])?$')]


class Language(StrEnum):
    """The languages that a template speaks."""

    EN = "en"
    ZH = "zh"

    @classmethod
    def of(cls, prompt: str) -> Language:
        """Return Chinese where a text has a Chinese character, else English."""
        return cls.ZH if _CHINESE.search(prompt) else cls.EN


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What an answer may look like, in one language.

    ``words``: each result and how the model writes it. ``most`` reasons, of ``longest`` characters
    each; in the form ``line`` of as many altogether.
    """

    kind: Literal["json", "line"]
    words: Mapping[str, str]
    most: int
    longest: int

    def constraint(self) -> Constraint:
        """Return what holds the model to the form."""
        if self.kind == "line":
            words = "|".join(map(re.escape, self.words.values()))
            return Constraint.regex(rf"({words})([:：] ?[^\n]{{1,{self.longest}}})?")
        reason = {"type": "string", "minLength": 1, "maxLength": self.longest}
        return Constraint.json_schema(
            {
                "type": "object",
                "properties": {
                    "result": {"type": "string", "enum": list(self.words.values())},
                    "reasons": {"type": "array", "items": reason, "maxItems": self.most},
                },
                "required": ["result", "reasons"],
                "additionalProperties": False,
            }
        )


class TemplateError(Exception):
    """A template that cannot be used; the message names the key at fault."""


class _Reasons(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    most: int = Field(default=5, ge=1, le=20)
    longest: int = Field(default=120, ge=1, le=500)


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    en: str
    zh: str


class _File(BaseModel):
    """A template as its file has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    form: Literal["json", "line"] = "json"
    patterns: list[str] = Field(default_factory=list, max_length=100)
    results: list[Word] = Field(min_length=2, max_length=20)
    reasons: _Reasons = _Reasons()
    text: _Text
    words: dict[Literal["en", "zh"], dict[str, Word]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template that can be used."""

    name: str
    patterns: tuple[re.Pattern[str], ...]
    texts: Mapping[Language, str]
    forms: Mapping[Language, AnswerForm]

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read and check a parsed file. Raises TemplateError."""
        try:
            file = _File.model_validate(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise TemplateError(f"{place}: {first['msg']}") from error
        if file.name == NO_TEMPLATE:
            raise TemplateError(f"name: {NO_TEMPLATE!r} means that no template is wanted")
        return cls(
            file.name,
            tuple(_pattern(index, text) for index, text in enumerate(file.patterns)),
            {language: _text(file.text, language) for language in Language},
            {language: _form(file, language) for language in Language},
        )

    def matches(self, prompt: str) -> bool:
        """Return whether the prompt is one of those that this template is for."""
        looked_at = prompt[:LOOKED_AT]
        return any(pattern.search(looked_at) for pattern in self.patterns)

    def text_for(self, prompt: str) -> str:
        """Return what the model is given instead of the prompt."""
        return self.texts[Language.of(prompt)].replace(PROMPT_MARK, prompt)

    def form_for(self, prompt: str) -> AnswerForm:
        """Return what the answer to the prompt may look like."""
        return self.forms[Language.of(prompt)]


def _pattern(index: int, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise TemplateError(f"patterns.{index}: {text!r} is no expression: {error}") from error


def _text(text: Any, language: Language) -> str:
    found: str = getattr(text, language.value).strip()
    if found.count(PROMPT_MARK) != 1:
        raise TemplateError(f"text.{language.value}: must have {PROMPT_MARK} in it, once")
    return found


def _form(file: _File, language: Language) -> AnswerForm:
    own = file.words.get(language.value, {})
    unknown = own.keys() - set(file.results)
    if unknown:
        raise TemplateError(f"words.{language.value}.{min(unknown)}: is none of results")
    written = [own.get(result, result) for result in file.results]
    for one, other in permutations(written, 2):
        if other.startswith(one):
            raise TemplateError(
                f"results: {other!r} begins with {one!r}; each must begin differently, that what "
                "the model writes is one of them alone"
            )
    words = dict(zip(file.results, written, strict=True))
    form = AnswerForm(file.form, words, file.reasons.most, file.reasons.longest)
    fault = fault_of(form.constraint())
    if fault is not None:
        raise TemplateError(f"results and reasons: {fault}")
    return form
