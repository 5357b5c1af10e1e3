"""An engine that answers at once with the number it is asked for, or after a given time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from forebay.core.engine_load import EngineLoad
from forebay.core.events import EngineEvent, Finished, FinishReason, Usage
from forebay.core.request import InferenceRequest, TaskId, Terms, TextPart

USAGE = Usage(prompt_tokens=8, completion_tokens=1)


def number_of(request: InferenceRequest) -> int:
    """Return the number that a request asks for: its last part is that text."""
    part = request.messages[-1].parts[-1]
    assert isinstance(part, TextPart)
    return int(part.text)


class NoopEngine:
    """An ``EnginePort``. ``on_claim`` is told each number when a worker has it in its hands.

    ``seconds``: how long an answer takes; answers do not slow each other.
    """

    ready = True
    accepting = True
    marks = ()
    load = EngineLoad()

    def __init__(
        self, on_claim: Callable[[int], None] = lambda _: None, seconds: float = 0.0
    ) -> None:
        self._on_claim = on_claim
        self._seconds = seconds
        self._events: list[EngineEvent] = []
        self._any = asyncio.Event()

    def start(self) -> None:
        """Nothing runs here."""

    async def stop(self) -> bool:
        """Nothing runs here."""
        return True

    async def wait_accepting(self, timeout_s: float) -> None:
        """Return at once: it always wants more."""
        del timeout_s

    async def prepare(
        self, run: TaskId, request: InferenceRequest, images: Mapping[str, bytes], terms: Terms
    ) -> Any:
        """Return the answer."""
        del run, images, terms
        number = number_of(request)
        self._on_claim(number)
        return str(number)

    def add(self, run: TaskId, prepared: Any) -> None:
        """Answer, now or later."""
        if self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._answer, run, prepared)
        else:
            self._answer(run, prepared)

    def _answer(self, run: TaskId, text: str) -> None:
        self._events.append(Finished(run, text, FinishReason.STOP, USAGE))
        self._any.set()

    def abort(self, run: TaskId) -> None:
        """Let it be: its answer will be ignored."""

    async def next_events(self) -> list[EngineEvent]:
        """Return what has happened since the last call, waiting for something."""
        await self._any.wait()
        self._any.clear()
        events, self._events = self._events, []
        return events
