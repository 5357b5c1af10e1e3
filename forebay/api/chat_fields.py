"""Which fields of a chat request are honoured, which are harmless, which are refused.

Nothing that would change an answer is silently ignored: it is honoured, or it is a 400 that names
it. A field at the value that means "off" asks for nothing and passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from forebay.core.errors import InvalidRequestError

HONOURED: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
        "stop", "stop_token_ids", "min_tokens", "ignore_eos", "n", "logprobs", "top_logprobs",
        "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice",
        "stream", "stream_options", "metadata", "image_lossless",
        "tools", "tool_choice", "parallel_tool_calls",
    }
)  # fmt: skip

HARMLESS: Final = frozenset(
    {
        "user", "safety_identifier", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "parallel_tool_calls",
    }
)  # fmt: skip
"""Fields that do not change an answer here: bookkeeping of the client or of another provider."""


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ([], {})


def _none_or(*plain: Any) -> Callable[[Any], bool]:
    """Return a test for the values at which a field asks for what is done anyway."""
    return lambda value: (
        value is None
        or any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in plain)
    )


_OFF: Final[dict[str, Callable[[Any], bool]]] = {
    "tool_choice": _none_or("none", "auto"),
    "function_call": _none_or("none", "auto"),
    "modalities": _none_or(["text"]),
    "service_tier": _none_or("auto", "default"),
    "reasoning_effort": _none_or("none"),
    "verbosity": _none_or("medium"),
    "truncation": _none_or("disabled"),
    "best_of": _none_or(1),
    "length_penalty": _none_or(1),
    "skip_special_tokens": _none_or(True),
    "spaces_between_special_tokens": _none_or(True),
    "add_generation_prompt": _none_or(True),
}
"""What else asks for nothing, by field."""


def refuse_unsupported(raw: Mapping[str, Any], honoured: frozenset[str] = HONOURED) -> None:
    """Check the fields' names, and that unsupported ones are off.

    ``honoured``: the contract's own fields; the chat's by default.

    Raises:
        InvalidRequestError: naming the first field that cannot be honoured.
    """
    for name, value in raw.items():
        if name in honoured or name in HARMLESS or _OFF.get(name, _empty)(value):
            continue
        raise InvalidRequestError(f"the field {name!r} is not supported here", param=name)
