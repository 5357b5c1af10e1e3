"""The contents of files: one folder that every API process of a queue sees."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

from forebay.core.errors import StorageFullError
from forebay.queue.blobs import FULL_ERRNOS, RECOUNT_S, UNFINISHED_TTL_S

FILE_ID: Final = re.compile(r"file-[0-9a-f]{32}")
_CHUNK: Final = 2**20


class FileFolder:
    """Keeps contents by file id. Its methods block: call them in a thread.

    A file is written beside its place, synced, and renamed: readers see all of it or nothing.
    ``max_bytes`` bounds the folder; what others write is counted every ten seconds.
    """

    def __init__(self, folder: Path, max_bytes: int = 10 * 2**30) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes = 0
        self._counted_at = -RECOUNT_S
        self._counting = threading.Lock()

    def path(self, file_id: str) -> Path:
        """Return where a file's content lies. Raises KeyError for what is no id."""
        if not FILE_ID.fullmatch(file_id):
            raise KeyError(file_id)
        return self._folder / file_id

    def keep(self, file_id: str, content: IO[bytes]) -> int:
        """Copy ``content`` from its beginning; return its size. Raises StorageFullError."""
        content.seek(0, os.SEEK_END)
        self._reserve(content.tell())
        content.seek(0)
        return self.write(file_id, iter(lambda: content.read(_CHUNK), b""))

    def write(self, file_id: str, parts: Iterable[bytes]) -> int:
        """Write a file of ``parts``; return its size. Raises StorageFullError."""
        path = self.path(file_id)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            Path(name).replace(path)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            if error.errno in FULL_ERRNOS:
                raise StorageFullError("The disk for files is full.", retry_after=60) from error
            raise
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return size

    def link(self, file_id: str, target: Path) -> None:
        """Make a file's content outlive its deletion, at ``target``. Raises KeyError."""
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            target.hardlink_to(self.path(file_id))
        except FileNotFoundError:
            raise KeyError(file_id) from None
        except FileExistsError:
            return
        except OSError:  # a file system without links
            shutil.copyfile(self.path(file_id), target)

    def remove(self, file_id: str) -> None:
        """Remove a content, if it is there."""
        self.path(file_id).unlink(missing_ok=True)

    def older_than(self, seconds: float) -> list[str]:
        """Return the files written so long ago. What an hour has not finished is removed."""
        now, found = time.time(), []
        for path in self._folder.glob("*"):
            age = _age(path, now)
            if FILE_ID.fullmatch(path.name) and age > seconds:
                found.append(path.name)
            elif path.name.startswith(".new-") and age > UNFINISHED_TTL_S:
                path.unlink(missing_ok=True)
        return found

    def _reserve(self, size: int) -> None:
        with self._counting:
            if time.monotonic() - self._counted_at > RECOUNT_S:
                self._bytes = sum(_size(path) for path in self._folder.glob("*"))
                self._counted_at = time.monotonic()
            if self._bytes + size > self._max_bytes:
                raise StorageFullError(
                    f"The store for files is at its bound of {self._max_bytes} bytes.",
                    retry_after=60,
                )
            self._bytes += size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _age(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
