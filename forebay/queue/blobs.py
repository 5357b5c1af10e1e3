"""Pictures in a folder, by the SHA-256 of their bytes: they never ride in the queue."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from forebay.core.errors import QueueUnavailableError, StorageFullError
from forebay.core.request import DEFAULT_TENANT, Tenant
from forebay.queue.ports import AsideName

SHA256_HEX: Final = re.compile(r"[0-9a-f]{64}")
ASIDE_NAME: Final = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}")
MAX_BYTES: Final = 10 * 2**30
RECOUNT_S: Final = 10.0
YOUNG_S: Final = 60.0
"""A tenth of the least age at which a sweep looks at a file."""

UNFINISHED_TTL_S: Final = 3600.0
FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RETRY_AFTER_S: Final = 60.0
_FAN: Final = tuple(f"{byte:02x}" for byte in range(256))


class FolderBlobs:
    """BlobStore and SweptBlobs on one machine, or on a file system that machines share.

    A blob is written to a file of its own and renamed to its hash: readers see all of it or
    nothing. ``settle`` has the disk take the file and its name, in this order, so that one write of
    the file system's journal holds both; a task that survives a power loss then finds its picture.
    Storing bytes that are there already renews their time; what a power loss left half written is
    written anew.

    ``max_bytes`` bounds the folder. Other processes' writes are counted every ten seconds, so the
    bound may be passed by what they write in between. ``clock``: seconds since the epoch, what the
    times of files are compared with.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._counted_at = -RECOUNT_S
        self._counting = threading.Lock()

    async def put(self, content: bytes, tenant: Tenant = DEFAULT_TENANT) -> str:
        """Store ``content``; return its SHA-256.

        Raises:
            StorageFullError: the disk or the folder's bound is full; nothing was kept.
            QueueUnavailableError: the folder cannot be written for another reason.
        """
        del tenant  # all share the folder
        return await asyncio.to_thread(self._put, content)

    async def settle(self, sha256s: Sequence[str]) -> None:
        """Sync what was put, and the folders of its names.

        Raises:
            StorageFullError: the disk says only now that it is full.
            QueueUnavailableError: it cannot be synced for another reason.
        """
        await asyncio.to_thread(self._settle, [self._path(one) for one in sha256s])

    async def get(self, sha256: str, tenant: Tenant = DEFAULT_TENANT) -> bytes:
        """Return the bytes, verified. Raises KeyError when they are not there, or are damaged."""
        del tenant
        return await asyncio.to_thread(self._get, sha256)

    async def old(self, older_than_s: float) -> AsyncGenerator[list[str]]:
        """Yield what was not stored or read for so long; remove what was never finished."""
        for part in _FAN:
            yield await asyncio.to_thread(self._old, part, older_than_s)

    async def aside(self) -> AsyncGenerator[list[AsideName]]:
        """Yield what is set aside."""
        for part in _FAN:
            yield await asyncio.to_thread(self._aside, f"{part}/*.*")

    async def set_aside(self, sha256: str) -> AsideName | None:
        """Rename a blob; None when it is not there."""
        name = AsideName(f"{sha256}.{secrets.token_hex(8)}")
        path = self._path(sha256)
        moved = await asyncio.to_thread(_moved, path, path.with_name(name))
        return name if moved else None

    async def restore(self, name: AsideName) -> None:
        """Rename it back."""
        await asyncio.to_thread(self._restore, name)

    async def discard(self, name: AsideName) -> None:
        """Remove what was set aside."""
        await asyncio.to_thread(self._aside_path(name).unlink, missing_ok=True)
        with self._counting:
            self._counted_at = -RECOUNT_S

    def _put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._path(sha256)
        try:
            if not self._has(path, content):
                self._reserve(len(content))
                self._write(path, content)
        except OSError as error:
            raise _refusal(error) from error
        return sha256

    def _has(self, path: Path, content: bytes) -> bool:
        """Renew a file's time; False when it is not there, or not whole since a loss of power."""
        try:
            return self._renew(path) and path.read_bytes() == content
        except FileNotFoundError:  # set aside in between
            return False

    def _settle(self, paths: Sequence[Path]) -> None:
        try:
            for path in paths:
                with suppress(FileNotFoundError):  # set aside, so it was put and settled long ago
                    _sync(path)
                _sync(path.parent)
        except OSError as error:
            raise _refusal(error) from error

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.utime(name, (self._clock(),) * 2)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _reserve(self, size: int) -> None:
        with self._counting:
            if time.monotonic() - self._counted_at > RECOUNT_S:
                self._bytes = sum(map(_size, self._folder.glob("??/*")))
                self._counted_at = time.monotonic()
            if self._bytes + size > self._max_bytes:
                raise StorageFullError(
                    f"The store for pictures is at its bound of {self._max_bytes} bytes.",
                    retry_after=RETRY_AFTER_S,
                )
            self._bytes += size

    def _get(self, sha256: str) -> bytes:
        path = self._path(sha256)
        content = self._read(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            # Out of the way, so that the next put of the same bytes mends it.
            path.unlink(missing_ok=True)
            raise KeyError(sha256)
        self._renew(path)
        return content

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            for name in self._aside(f"{path.parent.name}/{path.name}.*"):
                self._restore(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise KeyError(path.name) from None

    def _restore(self, name: AsideName) -> None:
        path = self._aside_path(name)
        _moved(path, path.with_name(name[:64]))

    def _old(self, part: str, older_than_s: float) -> list[str]:
        for path in self._folder.glob(f"{part}/.new-*"):
            if self._age(path) > UNFINISHED_TTL_S:
                path.unlink(missing_ok=True)
        return [
            path.name
            for path in self._folder.glob(f"{part}/*")
            if SHA256_HEX.fullmatch(path.name) and self._age(path) > older_than_s
        ]

    def _aside(self, pattern: str) -> list[AsideName]:
        found = self._folder.glob(pattern)
        return [AsideName(path.name) for path in found if ASIDE_NAME.fullmatch(path.name)]

    def _renew(self, path: Path) -> bool:
        """Set a file's time to now, unless it is young; False when it is not there.

        To change a file whose name and bytes are just being synced would wait for the disk.
        """
        now = self._clock()
        try:
            if not 0 <= now - path.stat().st_mtime < YOUNG_S:
                os.utime(path, (now, now))
        except FileNotFoundError:
            return False
        return True

    def _age(self, path: Path) -> float:
        try:
            return self._clock() - path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _path(self, sha256: str) -> Path:
        if not SHA256_HEX.fullmatch(sha256):
            raise KeyError(sha256)
        return self._folder / sha256[:2] / sha256

    def _aside_path(self, name: AsideName) -> Path:
        if not ASIDE_NAME.fullmatch(name):
            raise ValueError(f"not the name of a blob set aside: {name[:100]!r}")
        return self._folder / name[:2] / name


def _refusal(error: OSError) -> StorageFullError | QueueUnavailableError:
    if error.errno in FULL_ERRNOS:
        return StorageFullError("The disk for pictures is full.", retry_after=RETRY_AFTER_S)
    return QueueUnavailableError(
        f"The folder for pictures cannot be written: {error.strerror}.", retry_after=RETRY_AFTER_S
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _moved(path: Path, to: Path) -> bool:
    try:
        path.rename(to)
    except FileNotFoundError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
