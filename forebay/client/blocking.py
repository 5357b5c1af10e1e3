"""The same client for programs without an event loop: each call runs one until it returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from forebay.client.client import Client
from forebay.client.events import Event
from forebay.client.task import Task

T = TypeVar("T")


class BlockingClient:
    """``Client`` without ``await``: the same arguments, the same errors, one thread at a time.

    Not for use inside an event loop.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = Client(*args, **options)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections. Tasks go on."""
        self._runner.run(self._client.close())
        self._runner.close()

    def create(self, prompt: str | None = None, **asked: Any) -> Task:
        """As ``Client.create``."""
        return self._runner.run(self._client.create(prompt, **asked))

    def get(self, task: Task | str) -> Task:
        """As ``Client.get``."""
        return self._runner.run(self._client.get(task))

    def result(self, task: Task | str) -> Task:
        """As ``Client.result``."""
        return self._runner.run(self._client.result(task))

    def cancel(self, task: Task | str) -> Task:
        """As ``Client.cancel``."""
        return self._runner.run(self._client.cancel(task))

    def ask(self, prompt: str, **asked: Any) -> str:
        """As ``Client.ask``."""
        return self._runner.run(self._client.ask(prompt, **asked))

    def list(self, *state: Any, **asked: Any) -> Iterator[Task]:
        """As ``Client.list``."""
        return self._each(self._client.list(*state, **asked))

    def events(self, task: Task | str, *, after: str | None = None) -> Iterator[Event]:
        """As ``Client.events``."""
        return self._each(self._client.events(task, after=after))

    def _each(self, found: AsyncGenerator[T]) -> Iterator[T]:
        async def after_it() -> T | None:
            return await anext(found, None)

        try:
            while (one := self._runner.run(after_it())) is not None:
                yield one
        finally:
            self._runner.run(found.aclose())
