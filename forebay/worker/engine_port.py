"""What a worker asks of an engine, whether that steps a model here or speaks to a server."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from forebay.core.engine_load import EngineLoad
from forebay.core.events import EngineEvent
from forebay.core.request import InferenceRequest, TaskId, Terms

MAX_UNPUBLISHED_STEPS = 8
"""Tokens of each sequence that may run ahead of the publisher; then the engine waits for it."""


class EnginePort(Protocol):
    """A running engine. Every member is used on the event loop, and none waits for the device.

    A request that was added ends in exactly one of ``Finished``, ``Failed`` and ``Returned``,
    unless it was aborted. What an engine holds is bounded by its worker's leases.
    """

    def start(self) -> None:
        """Begin to work; events come from here on."""
        ...

    async def stop(self) -> bool:
        """End; whatever runs is dropped. False when the engine does not come to rest."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it can answer: what the worker tells the queue and its supervisor."""
        ...

    @property
    def accepting(self) -> bool:
        """Whether it wants more requests now; never while it is not ready."""
        ...

    @property
    def marks(self) -> tuple[Hashable | None, ...]:
        """One for each of its parts that may hang: what changes as that part gets on with its work.

        None for a part without work. Always as many, in the same order; read from any thread.
        """
        ...

    @property
    def load(self) -> EngineLoad:
        """What it has to do now, and what it has done since its start."""
        ...

    async def wait_accepting(self, timeout_s: float) -> None:
        """Return when it wants more requests, or after ``timeout_s``."""
        ...

    async def prepare(
        self, run: TaskId, request: InferenceRequest, images: Mapping[str, bytes], terms: Terms
    ) -> Any:
        """Do what can be done before the request's turn. Raises ForebayError."""
        ...

    def add(self, run: TaskId, prepared: Any) -> None:
        """Take a prepared request; a refusal comes back as a ``Failed`` event."""
        ...

    def abort(self, run: TaskId) -> None:
        """Drop a request, without an event; an unknown one is no error."""
        ...

    async def next_events(self) -> list[EngineEvent]:
        """Return every event since the last call, waiting for one at least.

        Raises:
            EngineBrokenError: no events follow.
        """
        ...
