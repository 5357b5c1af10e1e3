"""Every prompt template of a folder, read once at the start."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forebay.api.review.errors import PromptsError
from forebay.api.review.template import NO_TEMPLATE, PromptTemplate, TemplateError
from forebay.core.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class PromptBook:
    """The templates, in the order of their files' names; the first whose pattern fits is taken."""

    templates: Sequence[PromptTemplate] = ()

    @classmethod
    def from_folder(cls, folder: Path) -> PromptBook:
        """Read every ``*.toml`` of a folder.

        Raises:
            PromptsError: a file cannot be read or used, two have one name, or there is none.
        """
        files = sorted(folder.glob("*.toml"))
        if not files:
            raise PromptsError(f"{folder}: there is no prompt template (*.toml) in it")
        names: dict[str, Path] = {}
        templates = []
        for file in files:
            template = _read(file)
            if template.name in names:
                raise PromptsError(
                    f"{file}: name: {template.name!r} is the name of "
                    f"{names[template.name].name} already"
                )
            names[template.name] = file
            templates.append(template)
        return cls(tuple(templates))

    def template_for(self, prompt: str, named: str | None) -> PromptTemplate | None:
        """Return the template that a request names, or that its prompt fits; None for neither.

        Raises:
            InvalidRequestError: it names one that does not exist.
        """
        if named is None:
            return next((one for one in self.templates if one.matches(prompt)), None)
        if named == NO_TEMPLATE:
            return None
        found = next((one for one in self.templates if one.name == named), None)
        if found is None:
            known = ", ".join([*(one.name for one in self.templates), NO_TEMPLATE])
            raise InvalidRequestError(
                f"there is no template {named[:64]!r}; there are: {known}", param="template"
            )
        return found


def _read(file: Path) -> PromptTemplate:
    try:
        return PromptTemplate.from_dict(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise PromptsError(f"{file}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PromptsError(f"{file}: is not TOML: {error}") from error
    except TemplateError as error:
        raise PromptsError(f"{file}: {error}") from error
