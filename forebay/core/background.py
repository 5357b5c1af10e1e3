"""Work beside everything else, for as long as something is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """One task from ``start`` to ``stop``. Should it fail, ``tell`` hears why at once."""

    def __init__(self, name: str, tell: Callable[[BaseException], object]) -> None:
        self._name = name
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin."""
        self._task = asyncio.create_task(work, name=self._name)
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel, and return when it has ended. What it failed by was told then."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def ended(self) -> None:
        """Return when it ends by itself; raises what it fails by. It must have been started."""
        assert self._task is not None
        await asyncio.shield(self._task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(error)
