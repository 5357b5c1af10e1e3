"""What the routes and the runner share of batches: their records, their folders, their numbers."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from forebay.api.files.store import FileStore
from forebay.core.errors import BatchNotFoundError, InvalidRequestError
from forebay.core.request import Tenant
from forebay.queue.batches import BatchRecord, RedisBatches

_INPUT: Final = "input.jsonl"
_ORPHAN_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """``lines`` of one input; ``window``: of one batch, those in the queue at once."""

    lines: int = 50_000
    window: int = 32


@dataclass(frozen=True, slots=True)
class BatchDesk:
    """Where batches are kept. ``folder``: what the running ones need, seen by every API process.

    ``news`` is set when there is a new batch, so that this process's runner looks at once.
    """

    batches: RedisBatches
    files: FileStore
    folder: Path
    limits: BatchLimits = field(default_factory=BatchLimits)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def folder_of(self, batch_id: str) -> Path:
        """Return where a running batch keeps what it needs."""
        return self.folder / batch_id

    def input_of(self, batch_id: str) -> Path:
        """Return its own copy of the input, which outlives the file."""
        return self.folder_of(batch_id) / _INPUT

    async def open(self, batch: BatchRecord) -> None:
        """Keep a new batch.

        Raises:
            FileNotHereError, QueueFullError, QueueUnavailableError: as they say.
            InvalidRequestError: the file was not uploaded to be a batch's input.
        """
        file = await self.files.find(batch.tenant, batch.input_id)
        if file.purpose != "batch":
            raise InvalidRequestError(
                f'the purpose of {file.file_id} is {file.purpose!r}, not "batch"',
                param="input_file_id",
            )
        await self.files.content(file)
        await asyncio.to_thread(self.files.folder.link, file.file_id, self.input_of(batch.batch_id))
        await self.batches.open(batch)
        self.news.set()

    async def find(self, tenant: Tenant, batch_id: str) -> BatchRecord:
        """Return a tenant's batch. Raises BatchNotFoundError."""
        found = await self.batches.get(batch_id)
        if found is None or found.tenant != tenant:
            raise BatchNotFoundError(f"No such batch: {batch_id[:64]}.", param="batch_id")
        return found

    async def forget(self, batch_id: str) -> None:
        """Remove what only a running batch needs."""
        await asyncio.to_thread(shutil.rmtree, self.folder_of(batch_id), ignore_errors=True)

    async def sweep(self) -> None:
        """Remove what batches have left that did not come to clean up."""
        for batch_id in await asyncio.to_thread(self._old):
            batch = await self.batches.get(batch_id)
            if batch is None or batch.status.final:
                await self.forget(batch_id)

    def _old(self) -> list[str]:
        before = time.time() - _ORPHAN_S
        return [one.name for one in self.folder.glob("batch_*") if _changed_s(one) < before]


def new_batch_id() -> str:
    """Return an id that nobody guesses."""
    return f"batch_{secrets.token_hex(16)}"


def file_id_of(batch_id: str, what: str) -> str:
    """Return the id of a file that a batch writes: the same one whoever finishes it."""
    return f"file-{hashlib.sha256(f'{batch_id} {what}'.encode()).hexdigest()[:32]}"


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
