"""Tokens as the newer of OpenAI's contracts count them."""

from __future__ import annotations

from typing import Any


def usage_object(prompt_tokens: int, answer_tokens: int) -> dict[str, Any]:
    """Return the tokens of a response, or of a whole batch."""
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + answer_tokens,
    }
