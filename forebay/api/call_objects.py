"""Calls of functions as OpenAI clients read them: in a whole answer, and in the pieces of one."""

from __future__ import annotations

from typing import Any, Final

from forebay.api.call_reader import Argued, CallBegun, CallReader, Said, Told
from forebay.core.events import Choice, FinishReason
from forebay.core.tools import ToolUse

CALLED: Final = "tool_calls"
"""Why an answer ended that has a call; one that was cut off says so instead."""


def read_calls(choice: Choice, use: ToolUse, answer_id: str) -> tuple[dict[str, Any], str]:
    """Return the fields of an answer's message, and why the answer ended.

    ``answer_id``: what the ids of its calls begin with, the same however often it is asked for.
    """
    reader = CallReader(use)
    told = [*reader.feed(choice.text), *reader.finish()]
    text = "".join(one.text for one in told if isinstance(one, Said))
    calls: list[dict[str, Any]] = []
    for one in told:
        if isinstance(one, CallBegun):
            calls.append(_call(one, answer_id))
        elif isinstance(one, Argued):
            calls[-1]["function"]["arguments"] += one.text
    if not calls:
        return {"content": text}, choice.reason
    return {"content": text or None, "tool_calls": calls}, reason_of(reader, choice.reason)


def delta_of(told: Told, answer_id: str) -> dict[str, Any]:
    """Return a piece of a streamed answer."""
    match told:
        case Said(text):
            return {"content": text}
        case CallBegun(index):
            return {"tool_calls": [{"index": index, **_call(told, answer_id)}]}
        case Argued(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def reason_of(reader: CallReader, reason: str) -> str:
    """Return why an answer ended, in the words of its contract."""
    return CALLED if reader.ended and reason == FinishReason.STOP else reason


def _call(begun: CallBegun, answer_id: str) -> dict[str, Any]:
    return {
        "id": f"call_{answer_id}_{begun.index}",
        "type": "function",
        "function": {"name": begun.name, "arguments": ""},
    }
