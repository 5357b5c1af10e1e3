"""The items of a response's output, message and calls of functions, as they grow and as they end.

A stream and the whole object are made by the same hand, so that they tell the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from forebay.api.call_reader import Argued, CallBegun, CallReader, Said, Told
from forebay.api.chat_objects import logprobs_object
from forebay.core.events import TokenLogprob
from forebay.core.request import TaskId
from forebay.core.tools import ToolUse

Item = dict[str, Any]

COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
_BEGUN: Final = "in_progress"
_CALL: Final = "function_call"


@dataclass(frozen=True, slots=True)
class Step:
    """What an event tells. ``delta``: text that it adds; a reader may have heard a part of it."""

    name: str
    fields: dict[str, Any]
    delta: str | None = None

    @property
    def length(self) -> int:
        """How much further it brings the answer, the same wherever its text was cut."""
        return 1 if self.delta is None else len(self.delta)


class Output:
    """The items, in their order. ``use``: functions that were on offer.

    Without any there is one message, from the beginning; else items come as the model writes them.
    """

    def __init__(self, task_id: TaskId, use: ToolUse | None) -> None:
        self.items: list[Item] = []
        self._task_id = task_id
        self._reader = None if use is None else CallReader(use)
        self._calls = 0
        self._held: tuple[TokenLogprob, ...] = ()  # of tokens that have no text yet

    def begin(self) -> Iterator[Step]:
        """The answer begins."""
        if self._reader is None and not self.items:
            yield from self._message()

    def feed(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> Iterator[Step]:
        """Take more of the model's text; it must be read to its end."""
        yield from self.begin()
        if self._reader is None:
            yield from self._said(text, logprobs)
            return
        for told in self._reader.feed(text):
            yield from self._tell(told)

    def finish(self, status: str) -> Iterator[Step]:
        """The answer is whole, or cut off: ``status`` is that of a message at its end."""
        for told in self._reader.finish() if self._reader else ():
            yield from self._tell(told)
        if not self.items:
            yield from self._message()
        if self._reader and self.items[-1]["type"] == _CALL:
            status = COMPLETED if self._reader.ended == self._calls else INCOMPLETE
        yield from self._close(status)

    def _tell(self, told: Told) -> Iterator[Step]:
        match told:
            case Said(text):
                yield from self._said(text, ())
            case CallBegun():
                yield from self._call(told)
            case Argued(_, text):
                self.items[-1]["arguments"] += text
                yield Step("response.function_call_arguments.delta", self._place(), text)

    def _said(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> Iterator[Step]:
        told, self._held = self._held + logprobs, ()
        if not text:
            self._held = told
            return
        if not self.items or self.items[-1]["type"] == _CALL:
            yield from self._message()
        part = self.items[-1]["content"][0]
        new = _logprobs(told)
        part["text"] += text
        part["logprobs"] += new
        place = {**self._place(), "content_index": 0}
        yield Step("response.output_text.delta", {**place, "logprobs": new}, text)

    def _message(self) -> Iterator[Step]:
        at = len(self.items)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item_id = f"msg_{self._task_id}" + (f"_{at}" if at else "")
        head = {"id": item_id, "type": "message", "status": _BEGUN, "role": "assistant"}
        yield from self._add({**head, "content": []}, {**head, "content": [part]})
        place = {**self._place(), "content_index": 0}
        empty = {**part, "logprobs": []}
        yield Step("response.content_part.added", {**place, "part": empty})

    def _call(self, begun: CallBegun) -> Iterator[Step]:
        self._calls += 1
        name = f"{self._task_id}_{begun.index}"
        item = {
            "id": f"fc_{name}",
            "type": _CALL,
            "status": _BEGUN,
            "call_id": f"call_{name}",
            "name": begun.name,
            "arguments": "",
        }
        yield from self._add(dict(item), item)

    def _add(self, shown: Item, item: Item) -> Iterator[Step]:
        """Begin an item; the one before it is whole."""
        if self.items:
            yield from self._close(COMPLETED)
        self.items.append(item)
        told = {"output_index": len(self.items) - 1, "item": shown}
        yield Step("response.output_item.added", told)

    def _close(self, status: str) -> Iterator[Step]:
        item = self.items[-1]
        item["status"] = status
        if item["type"] == _CALL:
            if status == COMPLETED:
                done = {**self._place(), "name": item["name"], "arguments": item["arguments"]}
                yield Step("response.function_call_arguments.done", done)
        else:
            part, place = item["content"][0], {**self._place(), "content_index": 0}
            part["logprobs"] += _logprobs(self._held)
            self._held = ()
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            yield Step("response.output_text.done", {**place, **done})
            yield Step("response.content_part.done", {**place, "part": dict(part)})
        told = {"output_index": len(self.items) - 1, "item": dict(item)}
        yield Step("response.output_item.done", told)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}


def _logprobs(told: tuple[TokenLogprob, ...]) -> list[dict[str, Any]]:
    found = logprobs_object(told)
    return list(found["content"]) if found else []


def whole_output(
    task_id: TaskId,
    use: ToolUse | None,
    text: str,
    logprobs: tuple[TokenLogprob, ...],
    status: str,
) -> list[Item]:
    """Return the items of an answer that has ended."""
    output = Output(task_id, use)
    for _ in (*output.feed(text, logprobs), *output.finish(status)):
        pass
    return output.items
