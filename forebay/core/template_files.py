"""Where a checkpoint keeps its chat template, and whether that knows functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from forebay.core.tools import MARKS

TEMPLATE_FILE: Final = "chat_template.jinja"
CONFIG_FILES: Final = ("chat_template.json", "tokenizer_config.json")
"""Older checkpoints have it in one of these, under ``chat_template``."""

NO_TOOLS: Final = (
    "the chat template of this model knows no functions, or no form of calls that is read here: "
    "leave tools and their messages out"
)

_TOOLS: Final = re.compile(r"\btools\b")


def template_in(config: Mapping[str, Any]) -> str | None:
    """Return the template in one of the JSON files, None where it has none."""
    found = config.get("chat_template")
    if isinstance(found, list):  # several named templates
        named = {entry.get("name"): entry.get("template") for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) else None


def has_tools(source: str) -> bool:
    """Whether a template prints functions, and calls in the family's form."""
    marks = (MARKS.call, MARKS.key, MARKS.value)
    return bool(_TOOLS.search(source)) and all(mark in source for mark in marks)
