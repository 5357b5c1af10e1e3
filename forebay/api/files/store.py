"""Files as the door has them: a record with a time to live, and a content in a folder."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from forebay.api.files.folder import FILE_ID, FileFolder
from forebay.core.errors import FileNotHereError, StorageFullError
from forebay.core.request import Tenant
from forebay.queue.files import MOST_FILES, FileRecord, RedisFiles

_ORPHAN_S: Final = 3600.0
"""A content is written before its record; one this old without a record has expired."""


def new_file_id() -> str:
    """Return an id that nobody guesses."""
    return f"file-{secrets.token_hex(16)}"


@dataclass(frozen=True, slots=True)
class FileStore:
    """Keeps, finds and forgets files."""

    records: RedisFiles
    folder: FileFolder

    async def upload(
        self, tenant: Tenant, content: IO[bytes], *, filename: str, purpose: str, ttl_s: int
    ) -> FileRecord:
        """Keep what a client sent. Raises StorageFullError, QueueUnavailableError."""
        if await self.records.count(tenant) >= MOST_FILES:
            raise StorageFullError(f"there are {MOST_FILES} files; delete some", retry_after=60)
        file_id = new_file_id()
        size = await asyncio.to_thread(self.folder.keep, file_id, content)
        record = _record(file_id, tenant, filename, purpose, size, ttl_s)
        await self.records.add(record)
        return record

    async def produce(
        self, file_id: str, tenant: Tenant, parts: Iterable[bytes], *, filename: str, ttl_s: int
    ) -> FileRecord:
        """Keep what a batch wrote, under an id known beforehand: twice is the same file."""
        size = await asyncio.to_thread(self.folder.write, file_id, parts)
        record = _record(file_id, tenant, filename, "batch_output", size, ttl_s)
        await self.records.add(record)
        return record

    async def find(self, tenant: Tenant, file_id: str) -> FileRecord:
        """Return a tenant's file. Raises FileNotHereError."""
        found = await self.records.get(file_id) if FILE_ID.fullmatch(file_id) else None
        if found is None or found.tenant != tenant:
            raise FileNotHereError(f"No such file: {file_id[:64]}. Files expire.", param="file_id")
        return found

    async def content(self, file: FileRecord) -> Path:
        """Return where the content lies. Raises FileNotHereError."""
        path = self.folder.path(file.file_id)
        if not await asyncio.to_thread(path.is_file):
            raise FileNotHereError(f"The content of {file.file_id} is gone.", param="file_id")
        return path

    async def delete(self, file: FileRecord) -> None:
        """Forget a file, its record first: a record without content would be a lie."""
        await self.records.remove(file)
        await asyncio.to_thread(self.folder.remove, file.file_id)

    async def sweep(self) -> int:
        """Remove the contents of files that have expired; return how many."""
        removed = 0
        for file_id in await asyncio.to_thread(self.folder.older_than, _ORPHAN_S):
            if await self.records.get(file_id) is None:
                await asyncio.to_thread(self.folder.remove, file_id)
                removed += 1
        return removed


def _record(
    file_id: str, tenant: Tenant, filename: str, purpose: str, size: int, ttl_s: int
) -> FileRecord:
    now = int(time.time())
    return FileRecord(file_id, tenant, filename, purpose, size, now, now + ttl_s)
